"""How to reach the parameter servers."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, fields
from typing import Any, Optional, Type, TypeVar

from basin.client import abi
from basin.client.library import library
from basin.errors import InvalidArgument

_Self = TypeVar('_Self', bound='Options')
_TEXTS = ('tf_config', 'ps_address', 'run_id', 'token_file', 'transport', 'metrics_file', 'gradient_dtype')


@dataclass
class Options:
    """The fields of basin_options; basin.h says what each does. The defaults are its own too, but for `log`: a program in
    C asks for these lines, one in Python shows them unless told not to."""
    tf_config: Optional[str] = None     # the JSON of TF_CONFIG; None: ps_address is used
    ps_address: Optional[str] = None    # host:port of ps 0, for observers without a TF_CONFIG
    run_id: Optional[str] = None
    token_file: Optional[str] = None
    observer: bool = False              # only reads, claims no task
    start_timeout_s: float = 600.0      # for parameter servers that are not there yet
    unreachable_timeout_s: float = 60.0  # for one that was there
    claim_timeout_s: float = 30.0       # for a task whose old process is not counted dead yet
    max_bytes_in_flight: int = 256 << 20
    log: bool = True                    # lines about waiting and reconnecting on standard error
    transport: Optional[str] = None     # 'auto', 'tcp' or 'shm'
    spin_us: int = 50
    keep_memory: bool = True            # asks the C library's allocator to keep large freed blocks
    metrics_file: Optional[str] = None  # to which step's metrics are appended, for the run's history
    gradient_dtype: Optional[str] = None  # what float32 gradients are sent as: 'float32', 'float16' or 'bfloat16'

    @classmethod
    def from_environment(cls: Type[_Self], **changes: Any) -> _Self:
        """TF_CONFIG, BASIN_RUN_ID, BASIN_TOKEN_FILE, BASIN_TRANSPORT, BASIN_METRICS_FILE and BASIN_GRADIENT_DTYPE, then the
        fields given here."""
        known = [one.name for one in fields(cls)]
        for name in changes:
            if name not in known:
                raise InvalidArgument(f'basin.Options has no field {name!r}; it has {", ".join(known)}')
        read = abi.Options()
        library().basin_options_from_environment(ctypes.byref(read), ctypes.sizeof(read))
        options = cls()
        for name in _TEXTS:
            text = getattr(read, name)
            setattr(options, name, None if text is None else text.decode(errors='surrogateescape'))
        for name, value in changes.items():
            setattr(options, name, value)
        return options

    def to_abi(self) -> abi.Options:
        # From the environment first: what it sets and this class does not know stays.
        made = abi.Options()
        library().basin_options_from_environment(ctypes.byref(made), ctypes.sizeof(made))
        for name in _TEXTS:
            text = getattr(self, name)
            setattr(made, name, None if not text else str(text).encode(errors='surrogateescape'))
        for name in ('start_timeout_s', 'unreachable_timeout_s', 'claim_timeout_s'):
            setattr(made, name, float(getattr(self, name)))
        for name in ('observer', 'max_bytes_in_flight', 'log', 'spin_us', 'keep_memory'):
            setattr(made, name, int(getattr(self, name)))
        return made
