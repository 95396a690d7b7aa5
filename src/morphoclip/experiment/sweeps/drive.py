"""A study from its first trial to its last: starts trials, watches their values, ends those that are behind, records all."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter, deque
from contextlib import ExitStack
from pathlib import Path

from morphoclip.experiment.runs import FAILED, FINISHED, INTERRUPTED, LOCK, PRUNED, read_record
from morphoclip.experiment.sweeps.objective import CURVES, logged_values
from morphoclip.experiment.sweeps.page import write_page
from morphoclip.experiment.sweeps.settings import Settings
from morphoclip.experiment.sweeps.study import Study, Trial, import_optuna
from morphoclip.experiment.sweeps.study_table import study_table
from morphoclip.experiment.sweeps.table import write_table
from morphoclip.experiment.sweeps.trials import Launcher, Running, check_config, described, last_step, overrides_of
from morphoclip.files import write_atomically
from morphoclip.lock import DEAD_AFTER, FolderLock
from morphoclip.training.interrupts import TIME_LIMIT, Interrupted, Interrupts
from morphoclip.training.launch import read_job
from morphoclip.training.pruning import REQUEST, TRIAL

SWEEP_LOCK, TABLE, PAGE = "sweep.lock", "sweep.csv", "sweep.html"
RESTARTS = 3  # of a trial that is interrupted, but not by the sweep
PAGE_EVERY_S = 60.0
BY_THE_USER = (130, TIME_LIMIT)  # Ctrl-C and `timeout` end trials elsewhere too; signals to the sweep's process do not


def run_sweep(settings: Settings, launcher: Launcher) -> int:
    """Run the trials that a sweep still lacks; returns the exit status, 1 if no trial of the sweep is finished.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: the training config cannot be composed, or see `study.Study`.
        BlockingIOError: another process runs this sweep.
        Interrupted: a signal, or `timeout` is over; trials have saved a checkpoint, and the same command goes on.
    """
    import_optuna()
    check_config(settings)
    job = read_job()
    with ExitStack() as held:
        lock = FolderLock(settings.folder / SWEEP_LOCK, job.name)
        held.enter_context(lock.acquire(patience=DEAD_AFTER if job.is_restart else 0.0))
        interrupts = held.enter_context(Interrupts(settings.timeout))
        held.enter_context(interrupts.deferred())
        return Sweep(settings, launcher).run(interrupts)


class Sweep:
    """The trials of a study that run at present.

    Args:
        settings: of the sweep. launcher: starts its trials.
    """

    def __init__(self, settings: Settings, launcher: Launcher) -> None:
        self.settings, self.launcher = settings, launcher
        self.study = Study(settings)
        self.running: dict[int, tuple[Trial, Running]] = {}
        self._seen: dict[int, float] = {}  # when the curves of a trial were last read
        self._restarts: Counter[int] = Counter()
        self._asked: set[int] = set()  # trials that were asked to end
        self._page_at = time.monotonic()

    def run(self, interrupts: Interrupts) -> int:
        """Run to the last trial; see `run_sweep`."""
        waiting = deque(self.study.unfinished())
        print(self.first_line(len(waiting)), flush=True)
        try:
            while interrupts.pending is None:
                while len(self.running) < self.settings.n_jobs and (waiting or self._lacks_trials()):
                    if waiting:
                        self.go_on(waiting.popleft())
                    else:
                        self.begin(self.study.ask())
                if not self.running:
                    break
                time.sleep(self.launcher.poll_s)
                for number in list(self.running):
                    self.look_at(number)
            asked = interrupts.pending
            if asked is not None and (self.running or waiting or self._lacks_trials()):
                self.interrupt(asked)
        except BaseException:
            for _, running in self.running.values():
                running.kill()
            raise
        finally:
            self.write(at_once=True)
        return self.ended()

    def _lacks_trials(self) -> bool:
        return len(self.study.trials) < self.settings.n_trials

    def first_line(self, waiting: int) -> str:
        """The first line of the command."""
        counts = self.study.counts()
        counts.pop("running", None)
        before = ", ".join(f"{number} {_WORDS[state]}" for state, number in counts.items())
        goes_on = f"; before: {before}" if before else ""
        return (
            f"{self.settings.folder}: {self.settings.n_trials} trials, {self.settings.n_jobs} at once, to "
            f"{'maximize' if self.settings.objective.maximize else 'minimize'} {self.settings.objective}{goes_on}"
            f"{f'; {waiting} were running and go on' if waiting else ''}"
        )

    def begin(self, trial: Trial) -> None:
        """Start a new trial.

        Raises:
            ValueError: its folder is that of another run.
        """
        folder = self.settings.folder / trial.run_id
        if read_record(folder):
            raise ValueError(
                f"{folder} is a run of another study, whose study.db is gone: move {self.settings.folder} away, or give the "
                "sweep another name="
            )
        self.start(trial)

    def go_on(self, trial: Trial) -> None:
        """Start a trial of before again, or record it if it has ended without the sweep."""
        folder = self.settings.folder / trial.run_id
        if read_record(folder).get("state") in (FINISHED, PRUNED, FAILED):
            self.record(trial, "", folder)
        else:
            self.start(trial)

    def start(self, trial: Trial) -> None:
        """Start a trial, or take up its job if that still waits or runs."""
        folder = self.settings.folder / trial.run_id
        running = self.launcher.taken_up(folder) if folder.is_dir() else None
        if running is None:
            with FolderLock(folder / LOCK).acquire(patience=DEAD_AFTER):  # a process of before may be saving still
                (folder / REQUEST).unlink(missing_ok=True)
                self._asked.discard(trial.number)
            with write_atomically(folder / TRIAL) as partial:
                known = {"sweep": self.settings.name, "number": trial.number, "parameters": trial.parameters}
                partial.write_text(json.dumps(known, indent=1) + "\n")
            own = ["--config-dir", self.settings.config_dir] if self.settings.config_dir else []
            running = self.launcher.start([*own, *overrides_of(self.settings, trial)], folder)
        goes_on = "goes on" if read_record(folder) else "starts"
        print(f"trial {trial.number} {goes_on}: {described(trial.parameters)}", flush=True)
        self.running[trial.number] = (trial, running)
        self.write()

    def look_at(self, number: int) -> None:
        """Give a trial's new values to the study, ask it to end if it is behind, and record it if it has ended."""
        trial, running = self.running[number]
        folder, ended = self.settings.folder / trial.run_id, running.has_ended()
        if self.settings.watched is not None and self._has_new_rows(number, folder):
            behind = self.study.report(number, logged_values(folder, self.settings.watched))
            if behind and not ended and number not in self._asked:
                self._asked.add(number)
                with write_atomically(folder / REQUEST) as partial:
                    partial.write_text("{}\n")
        if ended:
            del self.running[number]
            self.record(trial, running.how(), folder)
            self.write()

    def _has_new_rows(self, number: int, folder: Path) -> bool:
        path = folder / CURVES
        changed = path.stat().st_mtime if path.is_file() else 0.0
        before = self._seen.get(number, 0.0)
        self._seen[number] = changed
        return changed > before

    def record(self, trial: Trial, how: str, folder: Path) -> None:
        """Record in the study how a trial has ended; one that was interrupted from outside goes on.

        Args:
            how: its process or job has ended, for a trial that could not record why.
        """
        known = read_record(folder)
        state, number = known.get("state"), trial.number
        if state == INTERRUPTED and self._restarts[number] < RESTARTS:
            self._restarts[number] += 1
            print(f"trial {number} was {known['reason']}", flush=True)
            self.start(trial)
            return
        if state == PRUNED:
            self.study.prune(number)
            print(f"trial {number} pruned after {last_step(folder)} steps", flush=True)
        elif state == FINISHED:
            self._finish(trial, folder)
        else:
            reason = known.get("reason") if state == FAILED else None
            self._fail(number, reason or f"{how}: {self._last_line(folder)}")

    def _finish(self, trial: Trial, folder: Path) -> None:
        try:
            value = self.settings.objective.value(folder)
        except (LookupError, ValueError) as error:
            self._fail(trial.number, str(error.args[0]))
            if isinstance(error, LookupError) and self.study.best() is None:  # all others would lack it too
                raise ValueError(f"trial {trial.number} is finished, but {error.args[0]}") from error
            return
        self.study.finish(trial.number, value)
        best = self.study.best()
        print(f"trial {trial.number} finished: {self.settings.objective} {value:.5g} (best: trial {best})", flush=True)

    def _fail(self, number: int, reason: str) -> None:
        line = " ".join(reason.split())
        self.study.fail(number, line)
        print(f"trial {number} failed: {line}", flush=True)

    def _last_line(self, folder: Path) -> str:
        path = self.launcher.output(folder)
        lines = path.read_text(errors="replace").split("\n") if path is not None and path.is_file() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")

    def interrupt(self, asked: Interrupted) -> None:
        """End the trials with a checkpoint; jobs of Slurm run on if the sweep's own process was told to end."""
        if self.launcher.runs_on_alone and asked.status not in BY_THE_USER:
            print(f"{len(self.running)} jobs run on", flush=True)
            self.running.clear()
        else:
            print(f"{asked}: {len(self.running)} trials save a checkpoint; once more to end them at once", flush=True)
            for _, running in self.running.values():
                running.interrupt()
            while any(not running.has_ended() for _, running in self.running.values()):
                time.sleep(self.launcher.poll_s)
            for number in list(self.running):
                trial, running = self.running.pop(number)
                folder = self.settings.folder / trial.run_id
                if read_record(folder).get("state") in (FINISHED, PRUNED, FAILED):
                    self.record(trial, running.how(), folder)
        print(f"go on with\n  {shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}", file=sys.stderr, flush=True)
        raise asked

    def write(self, at_once: bool = False) -> None:
        """Write sweep.csv, and from time to time the page."""
        with_page = at_once or time.monotonic() - self._page_at > PAGE_EVERY_S
        sweep = study_table(self.study, importance=with_page)
        write_table(self.settings.folder / TABLE, sweep)
        if with_page:
            self._page_at = time.monotonic()
            write_page(self.settings.folder / PAGE, sweep)

    def ended(self) -> int:
        """Print what the sweep has found; returns the exit status."""
        counts, best = self.study.counts(), self.study.best()
        print(", ".join(f"{number} {_WORDS[state]}" for state, number in counts.items()))
        if best is not None:
            trial = self.study.trials[best]
            print(f"best: trial {best}, {self.settings.objective} {trial.value:.5g}: {described(trial.params)}")
        print(f"table: {self.settings.folder / TABLE}\npage: {self.settings.folder / PAGE}", flush=True)
        return int(best is None)


_WORDS = {"complete": FINISHED, "pruned": PRUNED, "fail": FAILED, "running": "running", "waiting": "waiting"}
