"""Softmax regression, and a network with one hidden layer, in numpy: loss and gradients."""

import numpy


def softmax_loss(logits, labels):
    """(mean cross-entropy, its gradient by the logits)."""
    logits = logits - logits.max(axis=1, keepdims=True)
    exponentials = numpy.exp(logits)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    rows = numpy.arange(len(labels))
    loss = -numpy.log(numpy.maximum(probabilities[rows, labels], 1e-30)).mean()
    probabilities[rows, labels] -= 1
    return float(loss), probabilities / numpy.float32(len(labels))


class Softmax:
    """Parameters: w [pixels, classes], b [classes]."""

    def __init__(self, pixels, classes):
        self.shapes = {'w': (pixels, classes), 'b': (classes,)}

    def logits(self, values, x):
        return x @ values['w'] + values['b']

    def gradients(self, values, x, labels, out):
        """Fills `out`, arrays like the parameters, and returns the loss."""
        loss, d = softmax_loss(self.logits(values, x), labels)
        numpy.matmul(x.T, d, out=out['w'])
        numpy.sum(d, axis=0, out=out['b'])
        return loss


class TwoLayers:
    """Parameters: w1 [pixels, hidden], b1, w2 [hidden, classes], b2; ReLU between."""

    def __init__(self, pixels, hidden, classes):
        self.shapes = {'w1': (pixels, hidden), 'b1': (hidden,), 'w2': (hidden, classes), 'b2': (classes,)}

    def hidden(self, values, x):
        return numpy.maximum(x @ values['w1'] + values['b1'], 0)

    def logits(self, values, x):
        return self.hidden(values, x) @ values['w2'] + values['b2']

    def gradients(self, values, x, labels, out):
        h = self.hidden(values, x)
        loss, d = softmax_loss(h @ values['w2'] + values['b2'], labels)
        numpy.matmul(h.T, d, out=out['w2'])
        numpy.sum(d, axis=0, out=out['b2'])
        dh = d @ values['w2'].T
        dh[h <= 0] = 0
        numpy.matmul(x.T, dh, out=out['w1'])
        numpy.sum(dh, axis=0, out=out['b1'])
        return loss


def accuracy(model, values, images, labels):
    right = sum(int((model.logits(values, images[i:i + 1000]).argmax(axis=1) == labels[i:i + 1000]).sum())
                for i in range(0, len(images), 1000))
    return right / len(images)
