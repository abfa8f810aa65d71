"""The low-level script of the parameter-server sample, without TensorFlow: it reads TF_CONFIG as the page's does."""

import argparse
import json
import os

parser = argparse.ArgumentParser()
parser.add_argument('--batch-size', type=int, default=1)
parser.add_argument('--learning-rate', type=float, default=1)
args = parser.parse_args()

tf_config = os.environ.get('TF_CONFIG')
if not tf_config or tf_config == "":
    raise ValueError("TF_CONFIG not found.")
tf_config_json = json.loads(tf_config)
cluster = tf_config_json.get('cluster')
job_name = tf_config_json.get('task', {}).get('type')
task_index = tf_config_json.get('task', {}).get('index')

import basin  # noqa: E402  (after what the page's script does first)

with basin.Client.connect() as client:
    model = basin.Model()
    w = model.dense('w', (2,))
    model.set_rule(basin.Sgd(1.0))
    client.declare(model)
    import numpy
    client.push({w: numpy.ones(2, 'float32')}).wait()
    client.step(loss=0.5)
    client.barrier('pushed')
    if client.is_chief:
        reached = float(client.pull(w).wait()[0])
        basin.Run.get_context().log('reached', reached)
        os.makedirs('outputs', exist_ok=True)
        with open('outputs/cluster.json', 'w') as file:
            json.dump({'cluster': cluster, 'task': [job_name, task_index]}, file)
    client.finish()
