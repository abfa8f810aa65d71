"""How processes are laid out: the values of Estimator's `distributed_training`."""

from __future__ import annotations

from typing import Any, Dict, Optional


class TensorflowConfiguration:
    """Parameter servers and workers, each with its TF_CONFIG. A count that is left out is the estimator's, or 1."""

    def __init__(self, worker_count: Optional[int] = None, parameter_server_count: Optional[int] = None) -> None:
        self.worker_count = worker_count
        self.parameter_server_count = parameter_server_count

    def to_job(self) -> Dict[str, Any]:
        counts = {'worker_count': self.worker_count, 'parameter_server_count': self.parameter_server_count}
        return {'ParameterServer': {name: count for name, count in counts.items() if count is not None}}


class MpiConfiguration:
    """node_count * process_count_per_node processes under mpirun."""

    def __init__(self, process_count_per_node: int = 1) -> None:
        self.process_count_per_node = process_count_per_node

    def to_job(self) -> Dict[str, Any]:
        # 1 says nothing, so that it does not contradict the estimator's own process_count_per_node.
        count = self.process_count_per_node
        return {'Mpi': {} if count == 1 else {'process_count_per_node': count}}
