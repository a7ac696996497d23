"""How the processes of a run are started: as Lightning does, and watched by `counterpoint.runs.processes`."""

from __future__ import annotations

from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from counterpoint.runs.processes import STARTED, watch


class Launcher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine, and watches them."""

    def launch(self, function, *args, trainer=None, **kwargs):
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            self._call_children_scripts()
            STARTED[:] = self.procs
        watch()
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


class DDP(DDPStrategy):
    """Lightning's, but for who watches."""

    def _configure_launcher(self) -> None:
        self._launcher = Launcher(self.cluster_environment, self.num_processes, self.num_nodes)
