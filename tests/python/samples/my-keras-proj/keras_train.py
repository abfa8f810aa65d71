"""Uses the keras that pip has installed, on its numpy backend: a forward pass is all that this one can do."""

import argparse
import os

os.environ['KERAS_BACKEND'] = 'numpy'
import keras  # noqa: E402  (reads the variable above)
import numpy  # noqa: E402

from basin.core import Run  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument('--batch-size', type=int, required=True)
parser.add_argument('--learning-rate', type=float, required=True)
args = parser.parse_args()

layer = keras.layers.Dense(3, kernel_initializer='ones')
out = layer(numpy.ones((args.batch_size, 4), 'float32'))
run = Run.get_context()
run.log('sum', float(numpy.sum(out)))
run.log('learning_rate', args.learning_rate)
