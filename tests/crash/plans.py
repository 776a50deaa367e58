"""What is loaded onto the daemon: random runs of every sort, made from a seeded generator alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

Plan = list[list[Any]]

STEPS: tuple[Any, ...] = (["step"], ["step"], ["slow", 0.05], ["slow", 0.2], ["thread"], ["emit"])
PLAIN_STEPS: tuple[Any, ...] = (["step"], ["step"], ["slow", 0.1], ["emit"])
VERDICTS = ("allow", "block", "move")
"""What a hook makes of a run that it is asked about."""
SHORT, LONG = 0.05, 0.6
"""Seconds slept: on either side of `park_seconds`."""


@dataclass(frozen=True)
class Maker:
    """Makes the bodies of submissions whose effects go to one file."""

    effects: str
    random: Random

    def submission(self) -> dict[str, Any]:
        """Any run."""
        r = self.random
        make = r.choice(
            (self._mixed, self._mixed, self._plain, self._family, self._command, self._persons, self._judged)
        )
        body: dict[str, Any] = make()
        if r.random() < 0.2:
            body["priority"] = r.randint(-100, 100)
        if r.random() < 0.1:
            body["deadline_seconds"] = r.choice((0.1, 0.7, 60))
        if r.random() < 0.15 and not uses(body["inputs"].get("plan", []), "fragile"):
            body["recovery"] = r.choice(("requeue", "interrupt"))
        return body

    def every(self) -> list[dict[str, Any]]:
        """One of each sort, so that whoever submits these passes every place there is."""
        gathered = [["both", [[["step"], ["sleep", LONG]], [["signal"]], [["ask"]], [["flaky", 2]]]], ["step"]]
        children = [["child", "scripted", self._inputs([["step"], ["sleep", LONG]]), False]]
        children.append(["child", "command", self._inputs(seconds="0.05"), True])
        tried = self._body("scripted", [["step"], ["broken"], ["fail", 1], ["step"]])
        return [
            self._body("scripted", [["step"], ["slow", 0.05], ["thread"], ["fragile", 0.02], ["sleep", LONG]]),
            self._body("scripted", gathered),
            self._body("scripted", children),
            self._body("scripted", [["step"], ["hang"]]),
            self._body("scripted", [["step"], ["cling", LONG], ["step"]]),
            self._body("scripted_plain", [["step"], ["sleep", LONG], ["signal"], ["step"]]),
            tried | {"max_retries": 1},
            {"target": "command", "inputs": self._inputs(seconds="0.1")},
            {"target": "stubborn", "inputs": self._inputs(seconds="60")},
            self._body("scripted", [["step"], ["hang"]]) | {"deadline_seconds": 0.3},
            self._body("scripted", [["sleep", 60]]) | {"deadline_seconds": 0.8},
            self._body("scripted", [["step"], ["slow", 0.3], ["step"]]) | {"recovery": "requeue"},
            *(self._judged(verdict) for verdict in VERDICTS),
        ]

    def pipelines(self) -> list[dict[str, Any]]:
        """Runs on a scripted model, of every role."""
        roles = ["researcher", "planner", "executor", "reviewer", "release"]
        run = {"target": "pipeline", "mode": "simulation", "inputs": {}}
        return [run, run | {"roles": roles}, run | {"inputs": {"steps": ["one", "two"]}}]

    # --- sorts ---

    def _mixed(self) -> dict[str, Any]:
        plan = self._steps(STEPS)
        r = self.random
        if r.random() < 0.5:
            plan.append(["sleep", r.choice((SHORT, LONG))])
        if r.random() < 0.2:
            plan.append(["both", [[*self._steps(STEPS), ["sleep", r.choice((SHORT, LONG))]] for _ in range(3)]])
        if r.random() < 0.2:
            plan.append(["flaky", r.randint(1, 2)])
        if r.random() < 0.2:
            plan.append(["broken"])
        if r.random() < 0.15:
            plan.append(["fragile", 0.1])
        retries = r.choice((0, 0, 1))
        if r.random() < 0.15:
            plan += [["fail", r.randint(1, 2)], ["step"]]
        if r.random() < 0.15:
            plan.append(r.choice((["hang"], ["deaf", 1.0], ["cling", LONG])))
        return self._body("scripted", plan + self._steps(STEPS)) | {"max_retries": retries}

    def _plain(self) -> dict[str, Any]:
        plan = self._steps(PLAIN_STEPS)
        plan.append(self.random.choice((["sleep", LONG], ["fragile", 0.05], ["deaf", 0.4], ["signal"], ["ask"])))
        return self._body("scripted_plain", plan + self._steps(PLAIN_STEPS))

    def _family(self) -> dict[str, Any]:
        r = self.random
        plans = [[self._child()] for _ in range(r.randint(1, 3))]
        plan = [["both", plans]] if r.random() < 0.5 else [plan[0] for plan in plans]
        return self._body("scripted", [["step"], *plan, ["step"]])

    def _command(self) -> dict[str, Any]:
        seconds = self.random.choice(("0.05", "0.3", "60"))
        return {"target": self.random.choice(("command", "stubborn")), "inputs": self._inputs(seconds=seconds)}

    def _persons(self) -> dict[str, Any]:
        asked = [self.random.choice((["ask"], ["signal"], ["step"])) for _ in range(3)]
        if self.random.random() < 0.3:
            return self._body("scripted", [["both", [[each, ["step"]] for each in asked]]])
        return self._body("scripted", [["step"], *asked, ["step"]])

    def _judged(self, verdict: str | None = None) -> dict[str, Any]:
        body = self._body("judged", self._steps(STEPS))
        body["inputs"]["verdict"] = verdict or self.random.choice(VERDICTS)
        return body

    # --- parts ---

    def _child(self) -> list[Any]:
        r = self.random
        detached = r.random() < 0.3
        if r.random() < 0.3:
            seconds = r.choice(("0.05", "0.3"))
            return ["child", "command", self._inputs(seconds=seconds), detached]
        plan = self._steps(STEPS)
        if r.random() < 0.5:
            plan.append(["sleep", r.choice((SHORT, LONG))])
        if r.random() < 0.2:
            plan.append(["child", "scripted", self._inputs(self._steps(STEPS)), r.random() < 0.3])
        if r.random() < 0.1:
            plan.append(r.choice((["hang"], ["fail", 9])))
        return ["child", "scripted", self._inputs(plan), detached]

    def _steps(self, kinds: tuple[Any, ...]) -> Plan:
        return [self.random.choice(kinds) for _ in range(self.random.randint(1, 4))]

    def _inputs(self, plan: Plan | None = None, **more: Any) -> dict[str, Any]:
        return {"effects": self.effects, **({} if plan is None else {"plan": plan}), **more}

    def _body(self, target: str, plan: Plan) -> dict[str, Any]:
        return {"target": target, "inputs": self._inputs(plan)}


def operations(plan: Plan) -> Iterator[list[Any]]:
    """Every operation of a plan, those of a gather's branches included, those of its children not."""
    for operation in plan:
        if operation[0] == "both":
            for branch in operation[1]:
                yield from operations(branch)
        else:
            yield operation


def uses(plan: Plan, name: str) -> bool:
    """Whether a plan has this operation."""
    return any(operation[0] == name for operation in operations(plan))


def is_endless(run: dict[str, Any]) -> bool:
    """Whether a run ends only if it is stopped."""
    inputs = run["inputs"]
    return uses(inputs.get("plan", []), "hang") or float(inputs.get("seconds", 0)) > 10


def results(plan: Plan, output: list[Any]) -> Iterator[tuple[list[Any], Any]]:
    """Each operation of a plan with what it gave, those of a gather's branches included."""
    for operation, result in zip(plan, output, strict=True):
        if operation[0] == "both":
            for branch, given in zip(operation[1], result, strict=True):
                yield from results(branch, given)
        else:
            yield operation, result
