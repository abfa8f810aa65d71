run = experiment.submit(estimator)
print(run.get_portal_url())
run.wait_for_completion(show_output=True)
model = run.register_model(model_name='sklearn-sample', model_path=None)
