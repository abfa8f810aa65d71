"""Fashion-MNIST from its IDX files, read by TensorFlow itself: where the dataset runs, there the files are opened."""

import os

import tensorflow as tf

PIXELS = 28 * 28
CLASSES = 10
TRAIN, TEST = 60000, 10000
HEADER_BYTES = {'images': 4 + 3 * 4, 'labels': 4 + 4}  # magic number, then one 32-bit size a dimension


def records(folder, part, what, record_bytes):
    """The file's records as byte strings; `part`: train or t10k."""
    path = os.path.join(folder, f'{part}-{what}-idx{3 if what == "images" else 1}-ubyte.gz')
    return tf.data.FixedLengthRecordDataset(path, record_bytes, HEADER_BYTES[what], compression_type='GZIP')


def examples(folder, part):
    """A dataset of (pixels [784] float32 in 0 to 1, label int64)."""
    def decode(image, label):
        pixels = tf.cast(tf.io.decode_raw(image, tf.uint8), tf.float32) / 255
        return tf.reshape(pixels, [PIXELS]), tf.cast(tf.reshape(tf.io.decode_raw(label, tf.uint8), []), tf.int64)

    pair = tf.data.Dataset.zip((records(folder, part, 'images', PIXELS), records(folder, part, 'labels', 1)))
    return pair.map(decode)


def batches(folder, batch_size):
    """Shuffled training data without end. The raw bytes are kept in memory after the first pass."""
    return examples(folder, 'train').cache().repeat().shuffle(10000).batch(batch_size, drop_remainder=True)
