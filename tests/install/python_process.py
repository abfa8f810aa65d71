"""python_process.py PACKAGE LIBRARY: imports the package and uses it, then loads libbasin.so, pushes and pulls.

The structs below are basin.h's, field by field; `size` guards against a difference.
"""

import ctypes
import importlib
import sys
from ctypes import POINTER, byref, c_char, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint8, c_uint16, \
    c_uint32, c_uint64, c_void_p, sizeof

OK, ZEROS, RULE_SGD, CPU, FLOAT = 0, 1, 1, 1, 2
ROWS, COLUMNS = 784, 10


def struct(name, *fields):
    return type(name, (ctypes.Structure,), {'_fields_': list(fields)})


Status = struct('Status', ('code', c_int32), ('message', c_char * 1020))
Device = struct('Device', ('type', c_int32), ('id', c_int32))
DType = struct('DType', ('code', c_uint8), ('bits', c_uint8), ('lanes', c_uint16))
Tensor = struct('Tensor', ('data', c_void_p), ('device', Device), ('ndim', c_int32), ('dtype', DType),
                ('shape', POINTER(c_int64)), ('strides', POINTER(c_int64)), ('byte_offset', c_uint64))
Options = struct('Options', ('size', c_size_t), ('tf_config', c_char_p), ('ps_address', c_char_p), ('run_id', c_char_p),
                 ('token_file', c_char_p), ('observer', c_int32), ('start_timeout_s', c_double),
                 ('unreachable_timeout_s', c_double), ('claim_timeout_s', c_double), ('max_bytes_in_flight', c_uint64),
                 ('log', c_int32))
Initializer = struct('Initializer', ('kind', c_int32), ('a', c_float), ('b', c_float), ('seed', c_uint64))
Rule = struct('Rule', ('size', c_size_t), ('kind', c_int32), ('learning_rate', c_float), ('momentum', c_float),
              ('nesterov', c_int32), ('beta1', c_float), ('beta2', c_float), ('epsilon', c_float),
              ('initial_accumulator', c_float))
Variable = struct('Variable', ('size', c_size_t), ('name', c_char_p), ('ndim', c_int32), ('shape', POINTER(c_int64)),
                  ('dtype', DType), ('initializer', Initializer), ('statistic', c_int32), ('rule', POINTER(Rule)))
Item = struct('Item', ('variable', c_uint32), ('push', POINTER(Tensor)), ('assign', POINTER(Tensor)),
              ('pull', POINTER(Tensor)))


def use(package):
    """Makes the package's own protobuf work before Basin's comes in, and gives back how to do so once more."""
    module = importlib.import_module(package)

    def onnx():
        value = module.helper.make_tensor_value_info
        node = module.helper.make_node('Relu', ['x'], ['y'])
        graph = module.helper.make_graph([node], 'g', [value('x', 1, [1])], [value('y', 1, [1])])
        model = module.helper.make_model(graph)
        module.checker.check_model(module.load_from_string(model.SerializeToString()))

    def tensorflow():
        @module.function
        def square(x):
            return x * x
        assert float(square(module.constant(3.0))) == 9.0
        assert square.get_concrete_function(module.constant(3.0)).graph.as_graph_def().SerializeToString()

    again = {'onnx': onnx, 'tensorflow': tensorflow}[package]
    again()
    return again


def push_and_pull(library):
    basin = ctypes.CDLL(library)
    for name in ('basin_model_new', 'basin_version'):
        getattr(basin, name).restype = c_void_p if name == 'basin_model_new' else c_char_p
    status = Status()

    def check(code, what):
        if code != OK:
            sys.exit(f'{what}: code {code}: {status.message.decode()}')

    options = Options()
    basin.basin_options_from_environment(byref(options), c_size_t(sizeof(options)))
    assert options.size == sizeof(Options), f'basin_options is {options.size} bytes in the library, {sizeof(Options)} here'
    client = c_void_p()
    check(basin.basin_connect(byref(options), byref(client), byref(status)), 'connect')

    shape = (c_int64 * 2)(ROWS, COLUMNS)
    f32 = DType(FLOAT, 32, 1)
    model = c_void_p(basin.basin_model_new())
    variable = Variable(size=sizeof(Variable), name=b'w', ndim=2, shape=shape, dtype=f32, initializer=Initializer(kind=ZEROS))
    identity = c_uint32()
    check(basin.basin_model_add_variable(model, byref(variable), byref(identity), byref(status)), 'variable')
    rule = Rule()
    basin.basin_rule_init(byref(rule), c_size_t(sizeof(rule)), c_int32(RULE_SGD), c_float(0.5))
    check(basin.basin_model_set_rule(model, byref(rule), byref(status)), 'rule')
    check(basin.basin_declare(client, model, byref(status)), 'declare')
    basin.basin_model_free(model)

    count = ROWS * COLUMNS
    gradient, parameters = (c_float * count)(*range(count)), (c_float * count)(*([7.0] * count))

    def tensor(values):
        return Tensor(data=ctypes.addressof(values), device=Device(CPU, 0), ndim=2, dtype=f32, shape=shape)
    push, pull = tensor(gradient), tensor(parameters)
    item = Item(variable=identity, push=ctypes.pointer(push), pull=ctypes.pointer(pull))
    call = c_void_p()
    check(basin.basin_start(client, byref(item), c_size_t(1), byref(call), byref(status)), 'start')
    check(basin.basin_call_wait(call, c_double(60.0), byref(status)), 'push and pull')
    basin.basin_call_free(call)
    wrong = [i for i in range(count) if parameters[i] != -0.5 * i]
    assert not wrong, f'{len(wrong)} elements differ; element {wrong[0]} is {parameters[wrong[0]]}, not {-0.5 * wrong[0]}'
    check(basin.basin_step(client, None, None, c_size_t(0), byref(status)), 'step')
    check(basin.basin_finish(client, None, byref(status)), 'finish')
    basin.basin_close(client)


def main():
    package, library = sys.argv[1:]
    use_again = use(package)
    push_and_pull(library)
    # Neither has taken the other's symbols.
    use_again()
    print(f'pushed and pulled beside {package}')


if __name__ == '__main__':
    main()
