"""A TensorFlow job in the low-level style: TF_CONFIG by json, tf.train.Server, ps and workers; worker 0 leads.

Nothing here knows of Basin. Written for TensorFlow 1; the import below makes it run with TensorFlow 2.
"""

import argparse
import json
import os

import numpy
import tensorflow.compat.v1 as tf

import fashion_mnist

tf.disable_v2_behavior()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data', default='/usr/share/datasets/fashion-mnist')
    parser.add_argument('--hidden', type=int, default=128)
    parser.add_argument('--steps', type=int, default=2800, help='of all workers together')
    parser.add_argument('--batch-size', type=int, default=128)
    parser.add_argument('--learning-rate', type=float, default=1e-3)
    parser.add_argument('--checkpoint-dir', help='a folder that worker 0 and the ps see under one path; an earlier run is continued')
    return parser.parse_args()


def cluster_and_task():
    tf_config = os.environ.get('TF_CONFIG')
    if not tf_config or tf_config == "":
        raise ValueError("TF_CONFIG not found.")
    tf_config_json = json.loads(tf_config)
    task = tf_config_json.get('task')
    return tf.train.ClusterSpec(tf_config_json.get('cluster')), task.get('type'), task.get('index')


def logits(pixels, hidden):
    """One hidden layer. The second call uses the variables of the first."""
    with tf.variable_scope('network', reuse=tf.AUTO_REUSE):
        w1 = tf.get_variable('w1', [fashion_mnist.PIXELS, hidden])
        b1 = tf.get_variable('b1', [hidden], initializer=tf.zeros_initializer())
        w2 = tf.get_variable('w2', [hidden, fashion_mnist.CLASSES])
        b2 = tf.get_variable('b2', [fashion_mnist.CLASSES], initializer=tf.zeros_initializer())
    return tf.nn.relu(pixels @ w1 + b1) @ w2 + b2


def next_of(dataset):
    return tf.data.make_one_shot_iterator(dataset).get_next()


def train(cluster, index, target, args):
    me = f'/job:worker/task:{index}'
    with tf.device(tf.train.replica_device_setter(worker_device=me, cluster=cluster)):
        global_step = tf.train.get_or_create_global_step()
        pixels, labels = next_of(fashion_mnist.batches(args.data, args.batch_size))
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits(pixels, args.hidden)))
        step = tf.train.AdamOptimizer(args.learning_rate).minimize(loss, global_step=global_step)
        pixels, labels = next_of(fashion_mnist.examples(args.data, 't10k').batch(fashion_mnist.TEST))
        accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits(pixels, args.hidden), 1), labels), tf.float32))
        variables = {variable.op.name.split('/')[-1]: variable for variable in tf.trainable_variables()}
    # Without the filter a worker waits for all others to be up, also for one that has finished already.
    config = tf.ConfigProto(device_filters=['/job:ps', me])
    saver = tf.train.Saver()
    manager = tf.train.SessionManager(ready_op=tf.report_uninitialized_variables(), recovery_wait_secs=1)
    if index == 0:
        session = manager.prepare_session(target, init_op=tf.global_variables_initializer(), saver=saver,
                                          checkpoint_dir=args.checkpoint_dir, config=config)
    else:
        session = manager.wait_for_session(target, config=config)
    done = begun = session.run(global_step)
    own = 0
    while done < args.steps:
        _, done, value = session.run([step, global_step, loss])
        own += 1
        if own % 200 == 0:
            print(f'step {done}: loss {value:.4f}', flush=True)
            if index == 0 and args.checkpoint_dir:
                saver.save(session, os.path.join(args.checkpoint_dir, 'model'), global_step=done)
    print(f'{own} of {done - begun} steps', flush=True)
    if index == 0:
        os.makedirs('outputs', exist_ok=True)
        numpy.savez('outputs/model.npz', **session.run(variables))
        print(f'test accuracy {session.run(accuracy):.4f}', flush=True)


def main():
    args = arguments()
    cluster, role, index = cluster_and_task()
    server = tf.train.Server(cluster, job_name=role, task_index=index)
    if role == 'ps':
        server.join()  # never returns
    train(cluster, index, server.target, args)


if __name__ == '__main__':
    main()
