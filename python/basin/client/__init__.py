"""The client library on numpy arrays: pure Python over the C ABI of libbasin.so. Needs numpy.

    import basin
    with basin.Client.connect() as client:                 # reads TF_CONFIG
        model = basin.Model()
        w = model.dense('w', (784, 10), basin.Glorot(seed=1))
        model.set_rule(basin.Adam(1e-3))
        client.declare(model)
        for step in range(1000):
            W = client.pull(w).wait()
            loss, dW = gradients(W)                        # yours
            client.push({w: dW}).wait()
            client.step(loss=loss)
        client.finish()
"""

try:
    import numpy as _numpy  # noqa: F401
except ImportError as _error:
    raise ImportError('basin.Client works on numpy arrays, and numpy is not installed; pip install numpy') from _error

from basin.client.call import Call
from basin.client.client import Client, RunState
from basin.client.memory import allocate
from basin.client.model import Adagrad, Adam, Assigned, Constant, Ftrl, Glorot, He, Initializer, Model, Momentum, \
    Normal, Rule, RowwiseAdagrad, Sgd, Table, Uniform, Variable, Zeros
from basin.client.options import Options
from basin.client.piece import Piece

__all__ = ['Adagrad', 'Adam', 'Assigned', 'Call', 'Client', 'Constant', 'Ftrl', 'Glorot', 'He', 'Initializer', 'Model',
           'Momentum', 'Normal', 'Options', 'Piece', 'Rule', 'RowwiseAdagrad', 'RunState', 'Sgd', 'Table', 'Uniform',
           'Variable', 'Zeros', 'allocate']
