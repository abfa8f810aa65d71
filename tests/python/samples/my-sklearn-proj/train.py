"""Logistic regression by scikit-learn on the files of the input `mnist`: rows of numbers, the last one the class."""

import argparse
import glob
import os
import pickle

import numpy
from sklearn.linear_model import LogisticRegression

from basin.core import Run

parser = argparse.ArgumentParser()
parser.add_argument('--data-folder', required=True)
parser.add_argument('--regularization', type=float, required=True)
args = parser.parse_args()

run = Run.get_context()
assert run.input_datasets['mnist'] == args.data_folder, run.input_datasets
rows = numpy.concatenate([numpy.loadtxt(path) for path in sorted(glob.glob(os.path.join(args.data_folder, '*.txt')))])
model = LogisticRegression(C=1 / args.regularization).fit(rows[:, :-1], rows[:, -1])
run.log('regularization rate', args.regularization)
run.log('accuracy', model.score(rows[:, :-1], rows[:, -1]))
os.makedirs('outputs', exist_ok=True)
with open('outputs/model.pkl', 'wb') as file:
    pickle.dump(model, file)
