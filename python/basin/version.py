"""The package's version, which is that of the libbasin.so and the `basin` it was made for."""

__version__ = '0.1.0'
