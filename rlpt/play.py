"""`rlpt play RUN --game G`: a person against a run's policy, in the terminal, with what that thinks of the moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rich.tree
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlpt.errors import ConfigError
from rlpt.players import find_game, load_run, run_mover, search_options
from rlpt.search.evaluators import move_priors
from rlpt.search.tree import Node, Tree
from rlpt.selfplay.match import Mover, Position, Turn
from rlpt.tasks.base import keyed_hash
from rlpt.tasks.games.base import OVER, Game, GameState
from rlpt.training.runtime import Runtime

HELP = "a move; ? shows what the policy thinks of your moves, u takes your last move back, q ends"
MOST_MOVES = 12  # shown in a table
LINE = 6  # plies of a search's best line
SHOWN_PLIES, SHOWN_MOVES = 3, 3  # of a search's tree


@dataclass
class Board:
    """One game at the terminal. `ask` reads a line (None at the end of the input), `console` prints."""

    runtime: Runtime
    game: Game
    level: int
    seed: int
    seat: int  # the person's
    mover: Mover
    console: Console
    ask: Callable[[str], str | None]
    states: list[GameState] = field(default_factory=list)

    def play(self) -> None:
        """To the end of the game, or until the person ends it."""
        self.states = [self.game.opening(self.seed, self.level)]
        self.console.print(Text(f"{self.game.name}: you hold seat {self.seat}. {HELP}"))
        while (player := self.game.player(self.states[-1])) != OVER:
            if player != self.seat:
                self._policy_moves()
            elif not self._person_moves():
                return
        self._show()
        mine = self.game.returns(self.states[-1])[self.seat]
        verdict = "you win" if mine > 0 else "you lose" if mine < 0 else "a draw"
        self.console.print(Text(f"{verdict} ({mine:+g})", style="bold"))

    def _show(self) -> None:
        self.console.print(Text(position_text(self.game, self.states[-1])))

    def _person_moves(self) -> bool:
        """False where the person ends the game."""
        self._show()
        state = self.states[-1]
        legal = list(self.game.legal_moves(state))
        while True:
            said = self.ask(f"your move ({' '.join(legal[:40])}): ")
            if said is None or said == "q":
                return False
            if said == "?":
                self._explain(state, self._turn(state))
            elif said == "u":
                self._take_back()
                return True
            elif said in legal:
                self.states.append(self.game.apply(state, said))
                return True
            else:
                self.console.print(Text(f"no legal move: {said!r}; {HELP}"))

    def _take_back(self) -> None:
        """To the person's move before; to the start where there is none."""
        while len(self.states) > 1:
            self.states.pop()
            if self.game.player(self.states[-1]) == self.seat:
                return

    def _turn(self, state: GameState) -> Turn:
        (turn,) = self.mover([Position(self.game, state, keyed_hash("play", self.seed, len(state.moves)) >> 1)])
        return turn

    def _policy_moves(self) -> None:
        state = self.states[-1]
        turn = self._turn(state)
        self._explain(state, turn)
        self.console.print(Text(f"the policy plays {turn.move}", style="bold"))
        self.states.append(self.game.apply(state, turn.move))

    def _explain(self, state: GameState, turn: Turn) -> None:
        """The policy's probability of each move, and where it searched, visits, mean returns and the best line."""
        chooser, tokenizer = self.runtime.chooser, self.runtime.tokenizer
        ((priors, _),), values = move_priors(chooser, self.game, [state], tokenizer)
        moves, tree = list(self.game.legal_moves(state)), turn.tree
        order = np.lexsort((-priors, -tree.root.visits if tree is not None else np.zeros(len(moves))))
        table = Table(title=f"seat {self.game.player(state)}", title_justify="left")
        for heading in ("move", "policy", *(("visits", "mean return") if tree is not None else ())):
            table.add_column(heading, justify="right")
        for index in order[:MOST_MOVES]:
            row = [moves[index], f"{priors[index]:.3f}"]
            if tree is not None:
                visits = int(tree.root.visits[index])
                row += [str(visits), f"{tree.root.totals[index] / visits:+.2f}" if visits else "-"]
            table.add_row(*map(Text, row))
        self.console.print(table)
        if values is not None:
            self.console.print(Text(f"value head: {float(values[0]):+.2f}"))
        if tree is not None:
            self.console.print(tree_view(tree))
            self.console.print(Text(f"best line: {' '.join(best_line(tree))} ({tree.simulations} simulations)"))


def best_line(tree: Tree) -> list[str]:
    """The most visited move, the most visited answer to it, and so on."""
    line: list[str] = []
    node: Node | None = tree.root
    while node is not None and node.visits.any() and len(line) < LINE:
        index = int(np.argmax(node.visits))
        line.append(node.moves[index])
        node = node.children.get(index)
    return line


def tree_view(tree: Tree) -> rich.tree.Tree:
    """The most visited moves of the first plies, each with its visits and mean return to the seat that makes it."""
    view = rich.tree.Tree(Text("search tree"))
    _add_moves(view, tree.root, SHOWN_PLIES)
    return view


def _add_moves(view: rich.tree.Tree, node: Node, plies: int) -> None:
    if not plies or not node.visits.any():
        return
    for index in np.argsort(-node.visits, kind="stable")[:SHOWN_MOVES]:
        visits = int(node.visits[index])
        if visits:
            branch = view.add(Text(f"{node.moves[index]}  {visits} visits, {node.totals[index] / visits:+.2f}"))
            _add_moves(branch, node.children[int(index)], plies - 1)


def position_text(game: Game, state: GameState) -> str:
    """What a seat sees, rows below each other. At the end of a game: its moves, because nobody sees it then."""
    if game.player(state) == OVER:
        return "moves: " + " ".join(state.moves)
    return game.prompt(state).replace("/", "\n").replace(": ", ":\n")


def main(
    run: Path, game: str, level: int, seat: int, seed: int, simulations: int, leaf: str, temperature: float
) -> None:
    """Loads the run and plays one game. Raises ConfigError or CheckpointError."""
    from rlpt.distributed.device import leave

    found = find_game(game)
    if seat >= found.num_players:
        raise ConfigError(f"--seat {seat}: {game} has seats 0..{found.num_players - 1}")
    search = search_options(simulations, leaf)
    runtime, step = load_run(run)
    console = Console()
    console.print(Text(f"{run} after {step} steps"))
    mover = run_mover(runtime, search, temperature)
    Board(runtime, found, level, seed, seat, mover, console, _read_line).play()
    leave()


def _read_line(prompt: str) -> str | None:
    try:
        return input(prompt).strip()
    except EOFError:
        return None
