"""Environments that act together: E copies of one world for each of S members, episode after episode, in one process or several.

Every episode's start is a function of member, copy and episode number, and an environment is brought back by starting its episode
again and repeating its actions, so that a killed run goes on to the very numbers of an uninterrupted one.  What comes of it does
not depend on the number of processes.

Axes: S members, E copies, n environments of one process, do and da numbers in an observation and an action.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.configs.policy import SwitchConfig
from robopref.embodied import simstate
from robopref.embodied.planar import Planar
from robopref.embodied.switching import SwitchingEnv

ENDED = ("seed", "phase", "decisions", "success", "return")  # what is kept of an episode
Ended = tuple[float, ...]
Opening = tuple[np.ndarray, np.ndarray]  # fixed part, and first moving part, of an episode's simulator states


class Step(NamedTuple):
    """What one action of every environment led to."""

    next_obs: np.ndarray  # (S, E, do), of an episode that ended its last one
    rewards: np.ndarray  # (S, E)
    terminated: np.ndarray  # (S, E), ended for good
    done: np.ndarray  # (S, E), ended, for good or by time
    states: np.ndarray  # (S, E, K), see Board


class Board(NamedTuple):
    """What environments write and whoever acts reads, rows of numbers in memory that processes may share."""

    actions: np.ndarray  # (n, da)
    obs: np.ndarray  # (n, do), to act on next
    next_obs: np.ndarray  # (n, do)
    told: np.ndarray  # (n, 3): reward, terminated, done
    states: np.ndarray  # (n, K), the moving part of the simulator's state before the action; K is 0 where nobody asked for it

    def rows(self, part: slice) -> Board:
        """Some of them."""
        return Board(*(column[part] for column in self))


class Crew:
    """The environments of one process, places (member's seed, copy)."""

    def __init__(self, env_id: str, repeat: int, switch: SwitchConfig, places: Sequence[tuple[int, int]], board: Board) -> None:
        self.places, self.board, self.filmed = places, board, board.states.shape[1] > 0
        self.envs = [SwitchingEnv(env_id, repeat, switch) for _ in places]
        self.planar = None if self.filmed else Planar.of(self.envs)
        self.episode = np.zeros(len(places), np.int64)
        self.returns, self.succeeded = np.zeros(len(places)), np.zeros(len(places), np.bool_)
        self.actions: list[list[np.ndarray]] = [[] for _ in places]
        """Of the present episodes."""
        self.openings: list[Opening] = [(np.zeros(0), np.zeros(0))] * len(places)
        """Of the present episodes, where states are asked for."""
        for number in range(len(places)):
            self.start(number)

    def enter(self, phase: int) -> None:
        """Let all episodes that start from now on be of this phase."""
        for env in self.envs:
            env.enter(phase)

    def start(self, number: int) -> None:
        """Begin the present episode of an environment."""
        seed = np.random.default_rng([*self.places[number], int(self.episode[number])]).integers(2**31)
        self.board.obs[number] = self.envs[number].reset(seed=int(seed))[0]
        self.returns[number], self.succeeded[number], self.actions[number] = 0.0, False, []
        if self.filmed:
            self.openings[number] = simstate.save_static(self.envs[number]), simstate.save_dynamic(self.envs[number])

    def opened(self) -> list[Opening]:
        """`openings`."""
        return self.openings

    def step(self) -> list[Ended]:
        """Act as the board says; who comes to an end is told and starts again."""
        actions = self.board.actions.copy()
        done = (
            [self.act(number, action) for number, action in enumerate(actions)] if self.planar is None else self.act_all(actions)
        )
        ended: list[Ended] = []
        for number in np.flatnonzero(done).tolist():
            seed, decisions = self.places[number][0], len(self.actions[number])
            told = float(self.succeeded[number]), float(self.returns[number])
            ended.append((seed, self.envs[number].phase, decisions, *told))
            self.episode[number] += 1
            self.start(number)
        return ended

    def act_all(self, actions: np.ndarray) -> np.ndarray:
        """The same as `act` of every environment, for those that may go all at once; (n,)."""
        assert self.planar is not None
        board = self.board
        obs, rewards, terminated = self.planar.step(actions)
        if self.envs[0].switch.kind == "observation":
            obs = np.stack([env.shown(row) for env, row in zip(self.envs, obs, strict=True)])
        for taken, action in zip(self.actions, actions, strict=True):
            taken.append(action)
        done = terminated | np.array([len(taken) == self.planar.limit for taken in self.actions])
        board.obs[:] = board.next_obs[:] = obs
        board.told[:] = np.stack([rewards, terminated, done], 1)
        self.returns += rewards
        return done

    def act(self, number: int, action: np.ndarray) -> bool:
        """One action of one environment; whether its episode ended."""
        board = self.board
        if self.filmed:
            board.states[number] = simstate.save_dynamic(self.envs[number])
        obs, reward, terminated, truncated, info = self.envs[number].step(action)
        board.obs[number] = board.next_obs[number] = obs
        board.told[number] = reward, terminated, terminated or truncated
        self.actions[number].append(action)
        self.returns[number] += reward
        self.succeeded[number] |= bool(info.get("success", False))
        return terminated or truncated

    def pack(self) -> list[tuple[int, int, np.ndarray]]:
        """Of every environment the episode's number, its phase and its actions (K, da)."""
        actions = [np.array(taken, np.float32).reshape(-1, self.board.actions.shape[1]) for taken in self.actions]
        return [(int(number), env.phase, taken) for number, env, taken in zip(self.episode, self.envs, actions, strict=True)]

    def unpack(self, packed: Sequence[tuple[int, int, np.ndarray]]) -> None:
        """What `pack` gave, by repeating the present episodes."""
        for number, (episode, phase, actions) in enumerate(packed):
            self.episode[number] = episode
            self.envs[number].enter(phase)
            self.start(number)
            for action in actions:
                self.act(number, action)


class Fleet:
    """S x E environments; `obs` (S, E, do) is what they show now.  To be closed, if there are several processes."""

    def __init__(
        self,
        env_id: str,
        repeat: int,
        switch: SwitchConfig,
        seeds: Sequence[int],
        copies: int,
        processes: int = 1,
        filmed: bool = False,
    ) -> None:
        """filmed: whether simulator states are wanted, of Meta-World."""
        self.shape = len(seeds), copies
        first = SwitchingEnv(env_id, repeat, switch)
        self.sizes, size = first.sizes, simstate.layout(first).dynamic_size if filmed else 0
        places = [(seed, copy) for seed in seeds for copy in range(copies)]
        context = multiprocessing.get_context("spawn")
        (obs_dim, action_dim), count = self.sizes, len(places)
        shared = [context.RawArray("d", count * size) for size in (action_dim, obs_dim, obs_dim, 3, size)]
        self.board = board_of(shared, count)
        ends = np.linspace(0, count, min(processes, count) + 1).astype(int)
        self.parts = [slice(first, last) for first, last in pairwise(ends)]
        make = env_id, repeat, switch
        self.others: list[tuple[Connection, Any]] = []
        for part in self.parts[1:]:
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, shared, count, part, make, places[part]), daemon=True)
            process.start()
            self.others.append((here, process))
        self.crew = Crew(*make, places[self.parts[0]], self.board.rows(self.parts[0]))
        self.hear()
        self.ended: list[Ended] = []

    @property
    def obs(self) -> np.ndarray:
        """(S, E, do)."""
        return self.board.obs.reshape(*self.shape, -1)

    def enter(self, phase: int) -> None:
        """Let all episodes that start from now on be of this phase."""
        self.ask("enter", [(phase,)] * len(self.parts))

    def step(self, actions: np.ndarray) -> Step:
        """Act with actions (S, E, da) in [-1, 1]; who comes to an end starts again."""
        self.board.actions[:] = actions.reshape(self.board.actions.shape)
        for ended in self.ask("step", [()] * len(self.parts)):
            self.ended += ended
        rewards, terminated, done = self.board.told.T.reshape(3, *self.shape)
        next_obs, states = (part.reshape(*self.shape, part.shape[-1]).copy() for part in (self.board.next_obs, self.board.states))
        return Step(next_obs, rewards.copy(), terminated > 0, done > 0, states)

    def openings(self) -> list[Opening]:
        """Of the present episodes, one place after the other."""
        return [one for part in self.ask("opened", [()] * len(self.parts)) for one in part]

    def take(self) -> list[Ended]:
        """Episodes that ended since the last call, as ENDED names them."""
        ended, self.ended = self.ended, []
        return ended

    def pack(self) -> tuple[np.ndarray, list[list[int]]]:
        """Actions of all present episodes (N, da); and of each its number, its phase and how many of them are its own."""
        packed = [one for part in self.ask("pack", [()] * len(self.parts)) for one in part]
        return np.concatenate([actions for *_, actions in packed]), [[*which, len(actions)] for *which, actions in packed]

    def unpack(self, actions: np.ndarray, which: Sequence[Sequence[int]]) -> None:
        """What `pack` gave."""
        parts = np.split(actions, np.cumsum([count for *_, count in which])[:-1])
        packed = [(episode, phase, part) for (episode, phase, _), part in zip(which, parts, strict=True)]
        self.ask("unpack", [(packed[part],) for part in self.parts])

    def ask(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method of every crew, side by side; what they return."""
        for (pipe, _), given in zip(self.others, arguments[1:], strict=True):
            pipe.send((method, given))
        mine = getattr(self.crew, method)(*arguments[0])
        return [mine, *self.hear()]

    def hear(self) -> list[Any]:
        """The answers of the other processes; RoboprefError with what one of them died of."""
        answers = []
        for pipe, _ in self.others:
            try:
                error, answer = pipe.recv()
            except EOFError:
                raise RoboprefError(
                    "a process that simulates ended without a word: it was killed, perhaps for its memory"
                ) from None
            if error is not None:
                raise error
            answers.append(answer)
        return answers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for pipe, process in self.others:
            pipe.close()
            process.join()


def board_of(shared: Sequence[Any], count: int) -> Board:
    """The board in shared memory."""
    return Board(*(np.frombuffer(array).reshape(count, len(array) // count) for array in shared))


def serve(
    pipe: Connection,
    shared: Sequence[Any],
    count: int,
    part: slice,
    make: tuple[str, int, SwitchConfig],
    places: Sequence[tuple[int, int]],
) -> None:
    """What another process does: make its environments, then what it is asked until the pipe is closed."""
    # Ctrl-C goes to all processes of a terminal, and the step that is under way still needs this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    crew = None
    while True:
        try:
            if crew is None:
                crew, answer = Crew(*make, places, board_of(shared, count).rows(part)), None
            else:
                method, arguments = pipe.recv()
                answer = getattr(crew, method)(*arguments)
            pipe.send((None, answer))
        except (EOFError, BrokenPipeError):
            return
        except Exception as error:
            told = error if isinstance(error, RoboprefError) else RoboprefError("".join(traceback.format_exception(error)))
            pipe.send((told, None))
