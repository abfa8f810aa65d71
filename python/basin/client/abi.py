"""basin.h for ctypes: the structs field by field, and the functions' types. tests/python compares both with the header.

Fields at the end of a struct may be missing in an older library or in here: `size` says how much each side knows.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint8, c_uint16, \
    c_uint32, c_uint64, c_void_p
from typing import Any

from basin.errors import error_of

ABI_VERSION = 1
OK = 0
DEADLINE_EXCEEDED = 4
CPU = 1


class Status(ctypes.Structure):
    _fields_ = [('code', c_int32), ('message', c_char * 1020)]


class Device(ctypes.Structure):
    _fields_ = [('type', c_int32), ('id', c_int32)]


class DType(ctypes.Structure):
    _fields_ = [('code', c_uint8), ('bits', c_uint8), ('lanes', c_uint16)]


class Tensor(ctypes.Structure):
    _fields_ = [('data', c_void_p), ('device', Device), ('ndim', c_int32), ('dtype', DType),
                ('shape', POINTER(c_int64)), ('strides', POINTER(c_int64)), ('byte_offset', c_uint64)]


class Options(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('tf_config', c_char_p), ('ps_address', c_char_p), ('run_id', c_char_p),
                ('token_file', c_char_p), ('observer', c_int32), ('start_timeout_s', c_double),
                ('unreachable_timeout_s', c_double), ('claim_timeout_s', c_double), ('max_bytes_in_flight', c_uint64),
                ('log', c_int32), ('transport', c_char_p), ('spin_us', c_int32), ('keep_memory', c_int32),
                ('metrics_file', c_char_p), ('gradient_dtype', c_char_p)]


class Task(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('role', c_char_p), ('index', c_uint32), ('is_chief', c_int32),
                ('run_id', c_char_p), ('worker_count', c_uint32), ('ps_count', c_uint32)]


class Initializer(ctypes.Structure):
    _fields_ = [('kind', c_int32), ('a', c_float), ('b', c_float), ('seed', c_uint64)]


class Rule(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('kind', c_int32), ('learning_rate', c_float), ('momentum', c_float),
                ('nesterov', c_int32), ('beta1', c_float), ('beta2', c_float), ('epsilon', c_float),
                ('initial_accumulator', c_float), ('l1', c_float), ('l2', c_float), ('beta', c_float)]


class Variable(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('name', c_char_p), ('ndim', c_int32), ('shape', POINTER(c_int64)),
                ('dtype', DType), ('initializer', Initializer), ('statistic', c_int32), ('rule', POINTER(Rule))]


class Table(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('name', c_char_p), ('dim', c_uint32), ('storage', DType),
                ('initializer', Initializer), ('rule', POINTER(Rule)), ('admit_after', c_uint32),
                ('admit_probability', c_float), ('evict_unused_s', c_double), ('max_bytes', c_uint64)]


class Input(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('name', c_char_p), ('items', c_uint64), ('piece_items', c_uint64),
                ('epochs', c_uint32), ('shuffle_seed', c_uint64)]


class Item(ctypes.Structure):
    _fields_ = [('variable', c_uint32), ('push', POINTER(Tensor)), ('assign', POINTER(Tensor)),
                ('pull', POINTER(Tensor))]


class Rows(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('table', c_uint32), ('keys', c_void_p), ('count', c_size_t), ('push', c_void_p),
                ('pull', c_void_p), ('bags', c_void_p), ('bag_count', c_size_t), ('pooling', c_int32), ('unused', c_int32),
                ('device', Device), ('keys_device', Device)]


class Stream(ctypes.Structure):
    _fields_ = [('kind', c_int32), ('handle', c_size_t)]


class Piece(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('end', c_int32), ('piece', c_uint64), ('epoch', c_uint32), ('begin', c_uint64),
                ('end_item', c_uint64)]


class RunState(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('view', c_uint64), ('global_step', c_uint64), ('min_clock', c_uint64),
                ('stop', c_int32), ('finished', c_int32)]


# The header's name of each struct.
STRUCTS = {
    'basin_status': Status, 'basin_device': Device, 'basin_dtype': DType, 'basin_tensor': Tensor,
    'basin_options': Options, 'basin_task': Task, 'basin_initializer': Initializer, 'basin_rule': Rule,
    'basin_variable': Variable, 'basin_table': Table, 'basin_input': Input, 'basin_item': Item, 'basin_rows': Rows,
    'basin_piece': Piece, 'basin_run_state': RunState, 'basin_stream': Stream,
}

_STATUS = POINTER(Status)
# Opaque handles (basin_client*, basin_model*, basin_call*) and plain memory are c_void_p.
FUNCTIONS = {
    'basin_abi_version': (c_int32, []),
    'basin_version': (c_char_p, []),
    'basin_options_init': (None, [POINTER(Options), c_size_t]),
    'basin_options_from_environment': (None, [POINTER(Options), c_size_t]),
    'basin_connect': (c_int32, [POINTER(Options), POINTER(c_void_p), _STATUS]),
    'basin_close': (None, [c_void_p]),
    'basin_get_task': (None, [c_void_p, POINTER(Task)]),
    'basin_rule_init': (None, [POINTER(Rule), c_size_t, c_int32, c_float]),
    'basin_model_new': (c_void_p, []),
    'basin_model_free': (None, [c_void_p]),
    'basin_model_add_variable': (c_int32, [c_void_p, POINTER(Variable), POINTER(c_uint32), _STATUS]),
    'basin_model_add_table': (c_int32, [c_void_p, POINTER(Table), POINTER(c_uint32), _STATUS]),
    'basin_model_set_rule': (c_int32, [c_void_p, POINTER(Rule), _STATUS]),
    'basin_model_add_input': (c_int32, [c_void_p, POINTER(Input), _STATUS]),
    'basin_model_set_max_steps': (None, [c_void_p, c_uint64]),
    'basin_declare': (c_int32, [c_void_p, c_void_p, _STATUS]),
    'basin_get_variable': (c_int32, [c_void_p, c_uint32, POINTER(Variable), _STATUS]),
    'basin_get_table': (c_int32, [c_void_p, c_uint32, POINTER(Table), _STATUS]),
    'basin_start': (c_int32, [c_void_p, POINTER(Item), c_size_t, POINTER(c_void_p), _STATUS]),
    'basin_start_on_stream': (c_int32, [c_void_p, POINTER(Item), c_size_t, POINTER(Stream), POINTER(c_void_p), _STATUS]),
    'basin_start_rows': (c_int32, [c_void_p, POINTER(Rows), c_size_t, POINTER(c_void_p), _STATUS]),
    'basin_start_rows_on_stream': (c_int32, [c_void_p, POINTER(Rows), c_size_t, POINTER(Stream), POINTER(c_void_p),
                                             _STATUS]),
    'basin_evicted_keys': (c_int32, [c_void_p, c_uint32, c_void_p, c_size_t, POINTER(c_size_t), POINTER(c_int32),
                                     _STATUS]),
    'basin_call_order_before': (c_int32, [c_void_p, POINTER(Stream), _STATUS]),
    'basin_call_wait': (c_int32, [c_void_p, c_double, _STATUS]),
    'basin_call_done': (c_int32, [c_void_p]),
    'basin_call_staleness': (None, [c_void_p, POINTER(c_double), POINTER(c_uint64)]),
    'basin_call_free': (None, [c_void_p]),
    'basin_allocate': (c_void_p, [c_size_t]),
    'basin_deallocate': (None, [c_void_p]),
    'basin_set_learning_rate': (c_int32, [c_void_p, c_float, _STATUS]),
    'basin_step': (c_int32, [c_void_p, POINTER(c_char_p), POINTER(c_double), c_size_t, _STATUS]),
    'basin_next_input': (c_int32, [c_void_p, c_char_p, POINTER(Piece), _STATUS]),
    'basin_input_done': (c_int32, [c_void_p, c_char_p, c_uint64, _STATUS]),
    'basin_barrier': (c_int32, [c_void_p, c_char_p, c_double, _STATUS]),
    'basin_get_run_state': (None, [c_void_p, POINTER(RunState)]),
    'basin_wait_finished': (c_int32, [c_void_p, c_double, _STATUS]),
    'basin_finish': (c_int32, [c_void_p, c_char_p, _STATUS]),
    'basin_stats': (c_int32, [c_void_p, POINTER(c_void_p), _STATUS]),
    'basin_free_text': (None, [c_void_p]),
}


def declare_functions(library: ctypes.CDLL) -> None:
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments


def check(function: Any, *arguments: Any) -> None:
    """Calls a function whose last parameter is the status, and raises its error."""
    status = Status()
    code = function(*arguments, ctypes.byref(status))
    if code != OK:
        raise error_of(code, status.message.decode(errors='replace'))
