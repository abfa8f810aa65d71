from azureml.core import Dataset, Experiment, Workspace
from azureml.core.compute import ComputeTarget

ws = Workspace.from_config()
experiment = Experiment(workspace=ws, name='estimators')
compute_target = ComputeTarget(workspace=ws, name='local')
ds = Dataset.File.from_files(path=data_folder)
