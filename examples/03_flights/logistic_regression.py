#!/usr/bin/env python3
"""A logistic regression on the features of a schema, as the baseline: one-hot categories and crosses, standardised numbers.

usage: logistic_regression.py CSV SCHEMA [C...]      C: inverse strengths of the L2 penalty to try; the last line is the last one's

Needs scikit-learn and PyYAML.
"""

import bisect
import csv
import math
import sys

import numpy
import scipy.sparse
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score


class Features:
    """Columns of the matrix: numbers first, then one for each category's or cross's value of the training part."""

    def __init__(self, schema):
        self.schema = schema
        self.categories = [(name, name, None) for name in schema.get("categorical", [])]
        self.categories += [(bucket["name"], bucket["column"], bucket) for bucket in schema.get("buckets", [])]
        self.place = {}

    def values(self, row):
        texts = {}
        for name, column, bucket in self.categories:
            text = row[column]
            if bucket is not None and text:
                number = float(text)
                text = math.floor(number / bucket["width"]) if "width" in bucket else bisect.bisect(bucket["boundaries"], number)
            texts[name] = text
        yield from texts.items()
        for cross in self.schema.get("crosses", []):
            yield tuple(cross), tuple(texts[name] for name in cross)

    def matrix(self, rows, numbers, learn):
        """`learn`: the values of these rows get columns. Others' unknown values are left out."""
        columns, begins = [], [0]
        for row in rows:
            for key in self.values(row):
                if learn:
                    self.place.setdefault(key, len(self.place))
                if key in self.place:
                    columns.append(self.place[key])
            begins.append(len(columns))
        one_hot = scipy.sparse.csr_matrix((numpy.ones(len(columns)), columns, begins), shape=(len(rows), len(self.place)))
        return scipy.sparse.hstack([scipy.sparse.csr_matrix(numbers), one_hot]).tocsr()


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    with open(sys.argv[2], encoding="utf-8") as file:
        schema = yaml.load(file, yaml.BaseLoader)
    numeric = schema.get("numeric", []) + schema.get("numeric_wide_only", [])
    for bucket in schema.get("buckets", []):
        for field in set(bucket) & {"width", "boundaries"}:
            bucket[field] = [float(one) for one in bucket[field]] if field == "boundaries" else float(bucket[field])
    split, label = schema["split"], schema["label"]
    train, test = [], []
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row[label["column"]] and not ("test_until" in split and row[split["column"]] >= split["test_until"]):
                (test if row[split["column"]] >= split["test_from"] else train).append(row)
    labels = [numpy.array([float(row[label["column"]]) > float(label.get("above", 0)) for row in part]) for part in (train, test)]
    raw = [numpy.array([[float(row[name] or "nan") for name in numeric] for row in part]) for part in (train, test)]
    mean, deviation = numpy.nanmean(raw[0], axis=0), numpy.nanstd(raw[0], axis=0)
    scaled = [numpy.nan_to_num((part - mean) / deviation) for part in raw]
    features = Features(schema)
    learned, judged = features.matrix(train, scaled[0], True), features.matrix(test, scaled[1], False)
    print(f"{learned.shape[0]} examples to train on, {judged.shape[0]} for the test, {learned.shape[1]} columns", file=sys.stderr)
    for strength in sys.argv[3:] or ["1"]:
        model = LogisticRegression(C=float(strength), max_iter=1000).fit(learned, labels[0])
        probability = model.predict_proba(judged)[:, 1]
        print(f"C {strength}: test loss {log_loss(labels[1], probability):.4f}", file=sys.stderr)
        print(f"test AUC {roc_auc_score(labels[1], probability):.4f}", flush=True)


if __name__ == "__main__":
    main()
