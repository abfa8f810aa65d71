"""basin.Client against real parameter servers: variables, errors, waiting, processes."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import unittest
import warnings

import numpy

import built
import loopback
from loopback import basin, processes


def ones(*shape):
    return numpy.ones(shape, 'float32')


class OnDevice:
    """As arrays of a GPU show themselves."""
    __cuda_array_interface__ = {'shape': (2, 3), 'typestr': '<f4', 'data': (4096, False), 'version': 3}


class Variables(loopback.ClientCase):
    def test_a_push_is_applied_and_pulled(self):
        def declare(model):
            model.set_rule(basin.Sgd(0.5))
            return model.dense('w', (300, 700), basin.Constant(2)), model.dense('b', 5)
        client, (w, b) = self.alone(declare)
        gradient = numpy.arange(210000, dtype='float32').reshape(300, 700)
        client.push({w: gradient, b: ones(5)}).wait()
        into = numpy.empty((300, 700), 'float32')
        self.assertIs(client.pull({w: into}).wait()[w], into)
        numpy.testing.assert_array_equal(into, 2 - gradient / 2)
        both = client.pull([w, b]).wait()
        numpy.testing.assert_array_equal(both[b], -0.5 * ones(5))
        after = client.pushpull({b: ones(5)}, b).wait()
        numpy.testing.assert_array_equal(after, -ones(5))

    def test_values_are_assigned(self):
        client, w = self.alone(lambda model: model.dense('w', (2, 3), basin.Assigned()))
        client.assign({w: 7 * ones(2, 3)}).wait()
        numpy.testing.assert_array_equal(client.pull(w).wait(), 7 * ones(2, 3))

    def test_a_variable_of_its_own_rule_and_one_that_is_not_trained(self):
        def declare(model):
            model.set_rule(basin.Sgd(1))
            return (model.dense('a', (2,), rule=basin.Momentum(1.0, momentum=0.5)),
                    model.untrained('seen', (1,), statistic='sum'))
        client, (a, seen) = self.alone(declare)
        for _ in range(2):
            client.push({a: ones(2), seen: 3 * ones(1)}).wait()
        found = client.pull([a, seen]).wait()
        numpy.testing.assert_array_equal(found[a], -2.5 * ones(2))
        numpy.testing.assert_array_equal(found[seen], [6])

    def test_the_learning_rate_can_be_set(self):
        client, w = self.alone(lambda model: (model.dense('w', (2,)), model.set_rule(basin.Sgd(1)))[0])
        client.set_learning_rate(0.25)
        client.push({w: ones(2)}).wait()
        client.set_learning_rate(None)
        numpy.testing.assert_array_equal(client.pushpull({w: ones(2)}, w).wait(), -1.25 * ones(2))
        with self.assertRaises(basin.InvalidArgument):
            client.set_learning_rate(-1)

    def test_registered_memory_is_an_array_like_others(self):
        client, w = self.alone(lambda model: (model.dense('w', (64, 3)), model.set_rule(basin.Sgd(1)))[0])
        gradient = basin.allocate((64, 3))
        self.assertEqual((gradient.dtype, gradient.shape, gradient.ctypes.data % 64), ('float32', (64, 3), 0))
        numpy.testing.assert_array_equal(gradient, 0)
        gradient[:] = 4
        view = gradient[:32]
        client.push({w: gradient}).wait()
        del gradient
        gc.collect()
        numpy.testing.assert_array_equal(view, 4)  # the memory stays while a view of it does
        numpy.testing.assert_array_equal(client.pull(w).wait(), -4)

    def test_a_call_keeps_its_arrays_alive(self):
        client, w = self.alone(lambda model: (model.dense('w', (512, 512)), model.set_rule(basin.Sgd(1)))[0])
        calls = [client.push({w: numpy.full((512, 512), 2.0 ** i, 'float32')}) for i in range(8)]
        gc.collect()
        junk = [numpy.full((512, 512), -999, 'float32') for _ in range(16)]
        for call in calls:
            call.wait()
        self.assertEqual(len(junk), 16)
        numpy.testing.assert_array_equal(client.pull(w).wait(), -255)
        self.assertTrue(all(call.done() for call in calls))
        self.assertGreaterEqual(calls[-1].staleness()[0], 0)

    def test_what_does_not_fit_is_refused_with_the_variables_name(self):
        client, w = self.alone(lambda model: model.dense('kernel', (2, 3)))
        readonly = ones(2, 3)
        readonly.flags.writeable = False
        for part, array, expected in (
                ('push', numpy.ones((2, 3)), r'push of "kernel": dtype is float64, expected float32 or float16 or bfloat16; array.astype'),
                ('push', ones(3, 2), r'push of "kernel": shape is \(3, 2\), expected \(2, 3\)'),
                ('push', ones(3, 2).T, r'push of "kernel": the array is not contiguous'),
                ('push', [[1, 2, 3], [4, 5, 6]], r'push of "kernel": expected a numpy array, found list'),
                ('push', ones(2, 3).astype('>f4'), r'push of "kernel": dtype is float32 in the other byte order'),
                ('pull', readonly, r'pull of "kernel": the array is read-only')):
            with self.subTest(expected), self.assertRaisesRegex(basin.InvalidArgument, expected):
                getattr(client, part)({w: array})
        for part in ('push', 'pull'):  # without CUDA, or at an address that it does not know
            with self.assertRaisesRegex((basin.InvalidArgument, basin.FailedPrecondition), 'of "kernel": '):
                getattr(client, part)({w: OnDevice()})
        with self.assertRaisesRegex(basin.InvalidArgument, r'kernel.*(nan|NaN)'):
            client.push({w: numpy.full((2, 3), numpy.nan, 'float32')}).wait()
        with self.assertRaisesRegex(basin.InvalidArgument, "'kernel' is no variable"):
            client.push({'kernel': ones(2, 3)})
        with self.assertRaisesRegex(basin.InvalidArgument, 'belong to a table'):
            client.pull(w, [1])
        numpy.testing.assert_array_equal(client.pull(w).wait(), 0)

    def test_the_models_errors_are_raised_at_once(self):
        model = basin.Model()
        model.dense('w', (2,))
        with self.assertRaisesRegex(basin.AlreadyExists, 'w'):
            model.dense('w', (3,))
        with self.assertRaisesRegex(basin.InvalidArgument, 'expected a rule such as'):
            model.set_rule('adam')
        with self.assertRaisesRegex(basin.InvalidArgument, "statistic is 'max'"):
            model.untrained('s', (1,), statistic='max')


    def test_what_this_version_does_not_train_is_refused_by_declare(self):
        client = self.connect(self.servers())
        model = basin.Model()
        model.dense('d', (3,), dtype='float64')
        with self.assertRaisesRegex(basin.Unimplemented, '"d": dtype f64'):
            client.declare(model)


class Waiting(loopback.ClientCase):
    def stopped(self):
        """A client whose ps does not answer any more, until `resume`."""
        client, w = self.alone(lambda model: (model.dense('w', (4,)), model.set_rule(basin.Sgd(1)))[0], transport='tcp')
        self.stop(self.ps[0])
        return client, w

    def test_a_deadline_leaves_the_call_in_doubt_and_waiting_again_ends_it(self):
        client, w = self.stopped()
        call = client.push({w: ones(4)})
        with self.assertRaises(TimeoutError) as caught:
            call.wait(timeout=0.3)
        self.assertIsInstance(caught.exception, basin.DeadlineExceeded)
        self.assertIn('ps 0', str(caught.exception))
        self.assertFalse(call.done())
        self.ps[0].send(signal.SIGCONT)
        call.wait()
        call.wait()  # repeats its outcome
        numpy.testing.assert_array_equal(client.pull(w).wait(), -1)

    def test_a_call_that_is_let_go_of_goes_on_with_a_warning(self):
        client, w = self.stopped()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            client.push({w: numpy.full(4, 8, 'float32')})
            gc.collect()
        self.assertEqual([warning.category for warning in seen], [ResourceWarning])
        junk = [numpy.full(4, -999, 'float32') for _ in range(1000)]
        self.ps[0].send(signal.SIGCONT)
        numpy.testing.assert_array_equal(client.pull(w).wait(), -8)
        self.assertEqual(len(junk), 1000)

    def test_closing_ends_what_is_not_done(self):
        client, w = self.stopped()
        call = client.push({w: ones(4)})
        client.close()
        client.close()
        with self.assertRaises(basin.Cancelled):
            call.wait()
        with self.assertRaisesRegex(basin.FailedPrecondition, 'closed'):
            client.pull(w)

    def test_a_barrier_waits_for_the_other(self):
        layout = self.servers(workers=2)
        clients = [self.connect(layout, index=i) for i in range(2)]
        with self.assertRaises(basin.DeadlineExceeded):
            clients[0].barrier('b', timeout=0.2)
        other = threading.Thread(target=clients[1].barrier, args=('b',))
        other.start()
        clients[0].barrier('b')
        other.join()

    def test_the_task_the_run_and_an_observer(self):
        layout = self.servers(ps=2, workers=2)
        chief, second = (self.connect(layout, index=i) for i in range(2))
        self.assertEqual((chief.role, chief.index, chief.is_chief, chief.worker_count, chief.ps_count),
                         ('worker', 0, True, 2, 2))
        self.assertEqual((second.index, second.is_chief, second.run_id), (1, False, chief.run_id))
        model = basin.Model()
        w, user = model.dense('w', (3, 2)), model.table('user', 8, storage='float16')
        chief.declare(model)
        second.declare(model)
        observer = basin.Client.connect(basin.Options(tf_config=layout.of('evaluator'), observer=True, log=False))
        self.addCleanup(observer.close)
        self.assertEqual(observer.learn(), {'w': w, 'user': user})
        chief.step({'loss': 0.5})
        chief.step(loss=0.25, rate=1)
        self.assertEqual(chief.run_state().finished, False)
        shown = processes.wait_until(lambda: next((one for one in observer.stats()['clients'] if one.get('clock') == 2), None), 'the steps show')
        self.assertEqual(shown['index'], 0)
        second.finish()
        chief.finish()
        observer.wait_finished(timeout=processes.DEADLINE_S)

    def test_metrics_of_steps_go_to_the_metrics_file(self):
        file = self.path('metrics.jsonl')
        client = self.connect(self.servers(), metrics_file=file)
        model = basin.Model()
        model.dense('w', (2,))
        client.declare(model)
        client.step(loss=0.5)
        client.step({'loss': 0.25})
        client.finish()
        client.close()
        with open(file) as lines:
            found = [json.loads(line) for line in lines]
        self.assertEqual([line['value'] for line in found if line['name'] == 'loss'][-1], 0.25)

    def test_gradients_that_are_16_bits_are_sent_as_they_are(self):
        client, w = self.alone(lambda model: (model.dense('w', (2,)), model.set_rule(basin.Sgd(1)))[0])
        client.push({w: numpy.array([1.5, -2], 'float16')}).wait()
        numpy.testing.assert_array_equal(client.pull(w).wait(), [-1.5, 2])
        with self.assertRaisesRegex(basin.InvalidArgument, 'assign of "w": dtype is float16, expected float32;'):
            client.assign({w: numpy.ones(2, 'float16')})

    def test_gradients_are_sent_in_16_bits(self):
        client = self.connect(self.servers(), gradient_dtype='bfloat16')
        model = basin.Model()
        w = model.dense('w', (2,))
        model.set_rule(basin.Sgd(1))
        client.declare(model)
        after = client.pushpull({w: 0.1 * ones(2)}, w).wait()
        numpy.testing.assert_array_equal(after, -0.10009765625 * ones(2))  # the bfloat16 next to 0.1
        with self.assertRaisesRegex(basin.Error, 'gradient_dtype "half": expected float32, float16 or bfloat16'):
            self.connect(self.servers(), gradient_dtype='half')

    def test_a_model_that_differs_is_refused(self):
        layout = self.servers(workers=2)
        for index, shape in ((0, (3, 2)), (1, (3, 4))):
            client = self.connect(layout, index=index)
            model = basin.Model()
            model.dense('w', shape)
            if index == 0:
                client.declare(model)
            else:
                with self.assertRaisesRegex(basin.Error, 'w'):
                    client.declare(model)


class Processes(loopback.ClientCase):
    def test_nobody_there_is_unavailable_and_says_who(self):
        with self.assertRaisesRegex(basin.Error, 'ps 0'):
            basin.Client.connect(tf_config='{"cluster": {"ps": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}, '
                                           '"task": {"type": "worker", "index": 0}}', start_timeout_s=0.3, log=False)
        with self.assertRaisesRegex(basin.InvalidArgument, 'TF_CONFIG'):
            basin.Client.connect(log=False)
        with self.assertRaisesRegex(basin.InvalidArgument, "no field 'timeout'"):
            basin.Client.connect(timeout=3)

    def test_options_come_from_the_environment(self):
        os.environ.update(TF_CONFIG='{"cluster": {}}', BASIN_RUN_ID='r1', BASIN_TRANSPORT='tcp')
        try:
            options = basin.Options.from_environment(spin_us=7)
        finally:
            for name in ('TF_CONFIG', 'BASIN_RUN_ID', 'BASIN_TRANSPORT'):
                del os.environ[name]
        self.assertEqual((options.tf_config, options.run_id, options.transport, options.token_file, options.spin_us),
                         ('{"cluster": {}}', 'r1', 'tcp', None, 7))

    def test_after_a_fork_the_child_is_refused_and_the_parent_goes_on(self):
        client, w = self.alone(lambda model: model.dense('w', (2,)))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                client.pull(w)
            except basin.FailedPrecondition as error:
                code = 0 if 'fork' in str(error) else 2
            client.close()
            os._exit(code)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        numpy.testing.assert_array_equal(client.pull(w).wait(), 0)

    def test_control_c_ends_a_program_that_waits_for_servers(self):
        program = 'import basin; print("connecting", flush=True); basin.Client.connect()'
        config = '{"cluster": {"ps": ["127.0.0.1:1"], "worker": ["127.0.0.1:2"]}, "task": {"type": "worker", "index": 0}}'
        process = processes.Process([sys.executable, '-c', program], env=built.environment(TF_CONFIG=config))
        with process:
            process.wait_for_line('connecting')
            threads = lambda: len(os.listdir(f'/proc/{process.pid}/task'))
            processes.wait_until(lambda: threads() > 1, 'the library waits in a thread of its own')
            process.send(signal.SIGINT)
            process.wait_for_line('KeyboardInterrupt')
            self.assertEqual(process.wait(), -signal.SIGINT)

    def test_control_c_ends_a_program_that_waits_for_a_call(self):
        layout = self.servers()
        program = ('import basin, os, signal, numpy\n'
                   'client = basin.Client.connect()\n'
                   'model = basin.Model(); w = model.dense("w", (2,), basin.Assigned()); client.declare(model)\n'
                   'try:\n  print("pulling", flush=True)\n  client.pull(w).wait()\nexcept KeyboardInterrupt:\n  print("interrupted", flush=True)\n'
                   'client.pull(w).wait()\n')
        process = processes.Process([sys.executable, '-c', program], env=built.environment(TF_CONFIG=layout.of('worker')))
        with process:
            process.wait_for_line('pulling')
            process.send(signal.SIGINT)
            process.wait_for_line('interrupted')
            process.send(signal.SIGINT)
            process.wait_for_line('KeyboardInterrupt')
            self.assertEqual(process.wait(), -signal.SIGINT)

    def test_works_without_numpy_until_the_client_is_asked_for(self):
        program = ('import sys; sys.modules["numpy"] = None\n'
                   'import basin; basin.Estimator(entry_script="a.py"); basin.Run.get_context().log("loss", 1)\n'
                   'try:\n  basin.Client\nexcept ImportError as error:\n  print(error)\n')
        done = subprocess.run([sys.executable, '-c', program], env=built.environment(), capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('pip install numpy', done.stdout)


if __name__ == '__main__':
    unittest.main()
