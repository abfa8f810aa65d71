"""basin.Client when signals interrupt it and threads close it: nothing that the library uses is freed."""

import gc
import os
import signal
import sys
import threading
import types
import unittest
import warnings
import weakref
from unittest import mock

import numpy

import loopback
from loopback import basin, processes


def ones():
    return numpy.ones(4, 'float32')


class Stopped(loopback.ClientCase):
    """With a ps that does not answer until `resume`."""

    def setUp(self):
        super().setUp()
        # A shell that starts the test in the background has SIGINT ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, before)
        self.layout = self.servers()
        # Not `connect` of the base: the test itself decides when the client goes.
        self.client = basin.Client.connect(tf_config=self.layout.of('worker'), log=False, transport='tcp')
        self.addCleanup(self.close)
        model = basin.Model()
        self.w = model.dense('w', (4,))
        self.user = model.table('user', 2)
        model.set_rule(basin.Sgd(1))
        self.client.declare(model)
        self.stop(self.ps[0])

    def close(self):
        if self.client is not None:
            self.client.close()

    def resume(self):
        self.ps[0].send(signal.SIGCONT)

    def library_with(self, **functions):
        """In place of some of the library's functions."""
        whole = {name: getattr(self.client.library, name) for name in basin.client.abi.FUNCTIONS}
        return mock.patch.object(self.client, 'library', types.SimpleNamespace(**{**whole, **functions}))

    def interrupt_when(self, condition):
        """Ctrl-C once it holds."""
        def watch():
            processes.wait_until(condition, 'the call waits in the library')
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        thread = threading.Thread(target=watch)
        thread.start()
        self.addCleanup(thread.join)


class Interrupted(Stopped):
    def test_control_c_as_a_call_starts_frees_nothing_that_is_lent(self):
        start = self.client.library.basin_start

        def interrupted(*arguments):
            self.assertEqual(start(*arguments), 0)
            raise KeyboardInterrupt

        gradient = ones()
        lent = weakref.ref(gradient)
        with self.library_with(basin_start=interrupted), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                self.client.push({self.w: gradient})
            except KeyboardInterrupt:
                pass
            del gradient
            gc.collect()
        self.assertIsNotNone(lent(), 'the library still reads it')
        self.resume()
        numpy.testing.assert_array_equal(self.client.pull(self.w).wait(), -1)
        self.client.run_state()
        self.assertIsNone(lent(), 'the call is done and freed')

    def test_a_call_that_does_not_start_lends_nothing(self):
        gradient = ones()
        lent = weakref.ref(gradient)
        gradient[0] = numpy.nan
        with self.assertRaises(basin.InvalidArgument), warnings.catch_warnings():
            warnings.simplefilter('error')
            self.client.push({self.w: gradient})
        del gradient
        gc.collect()
        self.assertIsNone(lent())

    def test_a_warning_that_is_an_error_frees_nothing_that_is_lent(self):
        gradient = ones()
        lent = weakref.ref(gradient)
        with warnings.catch_warnings(), mock.patch.object(sys, 'unraisablehook', mock.Mock()) as told:
            warnings.simplefilter('error', ResourceWarning)
            self.client.push({self.w: gradient})
            del gradient
            gc.collect()
            self.assertTrue(told.called)
            told.reset_mock()
        self.assertIsNotNone(lent())
        self.resume()
        numpy.testing.assert_array_equal(self.client.pull(self.w).wait(), -1)

    def test_an_exception_of_a_signal_handler_is_no_outcome(self):
        def handler(*_):
            raise ValueError('from the handler')
        signal.signal(signal.SIGINT, handler)
        gradient = ones()
        lent = weakref.ref(gradient)
        call = self.client.push({self.w: gradient})
        del gradient
        entered, wait = threading.Event(), self.client.library.basin_call_wait

        def told(*arguments):
            entered.set()
            return wait(*arguments)

        self.interrupt_when(entered.is_set)
        with mock.patch.object(call, '_library', types.SimpleNamespace(basin_call_wait=told)), \
                self.assertRaisesRegex(ValueError, 'from the handler'):
            call.wait()
        self.assertFalse(call.done())
        gc.collect()
        self.assertIsNotNone(lent(), 'the library still reads it')
        self.resume()
        call.wait()
        numpy.testing.assert_array_equal(self.client.pull(self.w).wait(), -1)

    def test_an_abandoned_client_keeps_what_it_was_lent(self):
        gradient = ones()
        lent = weakref.ref(gradient)
        call = self.client.push({self.w: gradient})
        self.interrupt_when(lambda: any(one.name == 'basin-wait' for one in threading.enumerate()))
        with self.assertRaises(KeyboardInterrupt):
            self.client.finish()
        self.client.close()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            self.client = call = gradient = None  # noqa: F841
            gc.collect()
        self.assertIsNotNone(lent(), 'the library still reads it')
        self.resume()
        observer = self.connect(self.layout, role='evaluator', observer=True)
        w = observer.learn()['w']
        processes.wait_until(lambda: (observer.pull(w).wait() == -1).all(), 'the push goes on')

    def test_an_abandoned_call_keeps_the_array_that_it_fills(self):
        entered, go_on, written = threading.Event(), threading.Event(), []

        def slow(handle, table, keys, capacity, *_):
            entered.set()
            go_on.wait()
            written.append(made[0]() is not None and made[0]().ctypes.data == keys)
            return 0

        made, empty = [], numpy.empty

        def remembered(*arguments):
            array = empty(*arguments)
            made.append(weakref.ref(array))
            return array

        self.interrupt_when(entered.is_set)
        with self.library_with(basin_evicted_keys=slow):
            with mock.patch.object(numpy, 'empty', remembered), self.assertRaises(KeyboardInterrupt):
                self.client.evicted_keys(self.user)
            gc.collect()
            go_on.set()
            processes.wait_until(lambda: written, 'the call returns')
        self.assertEqual(written, [True])
        processes.wait_until(lambda: made[0]() is None, 'the array is freed with it')


class Closed(Stopped):
    def test_closing_waits_for_a_thread_that_is_in_the_library(self):
        order, entered = [], threading.Event()
        real = self.client.library.basin_close

        def slow(handle, *_):
            entered.set()
            processes.wait_until(lambda: self.client.handle is None, 'close has begun')
            order.append('the call returns')
            return 0

        def close(handle):
            order.append('the client is freed')
            real(handle)

        self.resume()
        with self.library_with(basin_declare=slow, basin_close=close):
            thread = threading.Thread(target=self.client.declare, args=(basin.Model(),))
            thread.start()
            entered.wait()
            self.client.close()
            thread.join()
        self.assertEqual(order, ['the call returns', 'the client is freed'])

    def test_closing_ends_what_waits_in_other_threads(self):
        errors = []

        def wait():
            try:
                self.client.wait_finished()
            except basin.FailedPrecondition as error:
                errors.append(str(error))

        self.resume()
        thread = threading.Thread(target=wait)
        thread.start()
        processes.wait_until(self.client._inside_now, 'the thread is in the library')
        self.client.close()
        thread.join()
        self.assertEqual(errors, ['the client is closed'])

    def test_a_signal_handler_that_closes_does_not_free_what_is_in_use(self):
        freed = []
        entered, go_on = threading.Event(), threading.Event()

        def slow(handle, *_):
            entered.set()
            go_on.wait()
            return 0

        def handler(*_):
            self.client.close()
            go_on.set()

        signal.signal(signal.SIGINT, handler)
        self.interrupt_when(entered.is_set)
        with self.library_with(basin_finish=slow, basin_close=freed.append):
            self.client.finish()
            self.assertEqual(freed, [])
        with self.assertRaisesRegex(basin.FailedPrecondition, 'the client is closed'):
            self.client.step()

    def test_a_piece_of_a_closed_client_says_so(self):
        self.resume()
        model = basin.Model()
        model.dense('w', (4,))
        model.table('user', 2)
        model.set_rule(basin.Sgd(1))
        model.add_input('train', items=4, piece_items=2)
        self.client.close()
        client = self.connect(self.servers())
        client.declare(model)
        piece = client.next_input('train')
        client.close()
        with self.assertRaisesRegex(basin.FailedPrecondition, 'the client is closed'):
            piece.done()

    def test_a_call_keeps_its_client(self):
        call = self.client.push({self.w: ones()})
        client = weakref.ref(self.client)
        self.client = None
        gc.collect()
        self.assertFalse(call.done())
        self.resume()
        call.wait()
        gc.collect()
        self.assertIsNone(client(), 'a call that is done keeps nothing')
        # It still answers, from what is its own.
        self.assertTrue(call.done())
        self.assertIsNone(call.wait())
        self.assertEqual(call.staleness(), (1.0, 1))  # the first version, and nothing was pulled before

    def test_a_child_closes_while_the_parent_has_a_thread_inside(self):
        entered, go_on = threading.Event(), threading.Event()

        def slow(handle, *_):
            entered.set()
            go_on.wait()
            return 0

        self.resume()
        with self.library_with(basin_declare=slow):
            thread = threading.Thread(target=self.client.declare, args=(basin.Model(),))
            thread.start()
            entered.wait()
            child = os.fork()
            if child == 0:
                self.client.close()
                os._exit(7)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 7)
            go_on.set()
            thread.join()


if __name__ == '__main__':
    unittest.main()
