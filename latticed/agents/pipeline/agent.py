"""The role pipeline as an agent: each role at work, each fact recorded, until one of its rules says that it is over."""

from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

import orjson
import structlog

from latticed import ids
from latticed.agents.pipeline import roles as texts
from latticed.agents.pipeline.answers import Answer, Findings, PlanAnswer, PlanVerdict, Verdict
from latticed.agents.pipeline.course import (
    EXECUTOR,
    PLANNER,
    REVIEWER,
    Ended,
    Fail,
    Finish,
    Go,
    Rewind,
    decide,
    has_failed,
)
from latticed.agents.pipeline.packets import Brief, cut, make_packet
from latticed.agents.pipeline.progress import Progress
from latticed.agents.pipeline.speaking import Speaking
from latticed.engine.context import Context
from latticed.engine.marks import Mark, mark, upcoming
from latticed.engine.outcomes import Finished, code_of, describe
from latticed.errors import Final, JournalConflict, Misuse, RunError, StepInterrupted
from latticed.failpoints import hit
from latticed.models.pipeline import DESCRIPTION_LIMIT, MEMORY_LIMIT, STEP_LIMIT, ContextPacket, PlanStep
from latticed.models.planning import NO_WORKFLOWS, BadPlan, objection_to, steps_of
from latticed.models.records import event
from latticed.models.redaction import redact

A = TypeVar("A", bound=Answer)
log = structlog.get_logger()

LAST_WORD_SECONDS = 2.0
"""How long a cancelled pipeline may take to record that."""
REASON_LIMIT = 2_000
ITEM_LIMIT = 2_000
OUTPUT_FRAME = 1_024
"""What an output has around what is said in it, with some to spare."""
_JUDGED: dict[str, Literal["approved", "rejected", "retry"]] = {
    "approve": "approved", "reject": "rejected", "retry": "retry",
}  # fmt: skip
"""What a reviewer says → how its role ended."""
_FATAL = (JournalConflict, Misuse, StepInterrupted)
_ENDS = {"ok": "completed", "approved": "completed", "failed": "blocked", "rejected": "rejected",
         "retry": "retry_requested"}  # fmt: skip
"""How a role ended → how the handoff to it ends."""


class Pipeline:
    """One entry of one run."""

    def __init__(self, ctx: Context, speaking: Speaking, goal: str, inputs: dict[str, Any]) -> None:
        self._ctx = ctx
        self._speaking = speaking
        self._inputs: dict[str, Any] = redact(inputs)
        self._config = speaking.config
        roles = ctx.roles or list(self._config.default_roles)
        constraints = texts.constraints(self._inputs, self._config.budget)
        self.progress = Progress(Brief(goal, self._inputs, ctx.max_retries, roles, constraints))
        self._shown_output: str | None = None
        self._workers = {
            "researcher": self._research, PLANNER: self._plan, EXECUTOR: self._execute, REVIEWER: self._review,
        }  # fmt: skip

    async def run(self) -> Finished:
        """Role after role.

        Raises:
            Final: it did not come to a good end; `code` says why.
        """
        position = 0
        while True:
            role, move = await self._take_turn(position)
            match move:
                case Go() | Rewind():
                    position = move.position
                case Finish():
                    return Finished(self.progress.output(), move.status)
                case Fail():
                    raise Final(move.code, cut(move.message, REASON_LIMIT), {"role": role})

    async def _take_turn(self, position: int) -> tuple[str, Go | Rewind | Finish | Fail]:
        brief = self.progress.brief
        settled = {} if self.progress.has_begun else {"roles": brief.roles, "constraints": brief.constraints}
        started, is_new = await self._tell("role.started", role=brief.roles[position], **settled)
        if is_new:
            hit("role.after_start")
        role, roles = started["role"], self.progress.brief.roles
        ended, said, exhausted = await self._let_work(role)
        move = decide(
            roles, position, ended, retries=self.progress.retries, most_retries=self._ctx.max_retries,
            complete=self.progress.complete,
        )  # fmt: skip
        fact: dict[str, Any] = {
            "role": role, "status": "failed" if has_failed(role, ended) else "ok", "handed": _ENDS[ended.how],
            "reason": cut(ended.reason, REASON_LIMIT), "said": said,
        }  # fmt: skip
        if isinstance(move, Go | Rewind) and exhausted is None:
            fact |= {
                "target": roles[move.position], "handoff_id": ids.new(ids.HANDOFF),
                "packet_id": ids.new(ids.PACKET),
            }  # fmt: skip
        if isinstance(move, Rewind):
            fact["retry"] = {"notes": self.progress.story.review_history[-1].notes}
        _, is_new = await self._tell("role.finished", **fact)
        if is_new:
            hit("role.after_end")
        if exhausted is not None:
            raise exhausted
        return role, move

    async def _let_work(self, role: str) -> tuple[Ended, str | None, Final | None]:
        """How the role ended, what it made, and the error that ends the run whatever any rule says."""
        try:
            ended, said = await self._workers.get(role, partial(self._do, role))()
            return ended, said, None
        except Exception as error:
            self._need_to_be_its_own(error)
            if not isinstance(error, RunError):
                log.warning("role_raised", role=role, exc_info=error)
            described = describe(error)
            over = Final(described["code"], described["message"], {"role": role}) if _ends_all(error) else None
            return Ended("failed", described["message"]), None, over

    def _need_to_be_its_own(self, error: Exception) -> None:
        """Raises an error that is no fact of the pipeline: it is about the journal, or it came where the journal goes
        on with what was done the first time, such as when a tool's server is away at a later entry."""
        if isinstance(error, _FATAL) or upcoming(self._ctx) not in (None, "mark"):
            raise error

    # Facts

    async def _tell(self, what: str, **given: Any) -> tuple[dict[str, Any], bool]:
        """Records a fact, or takes the one that is recorded; either way it is part of the picture from now on. True:
        it is new."""

        def make(at: int) -> Mark:
            fact = {"what": what, "at": at, **given}
            told = self.progress.tell(fact)
            return Mark(fact, [event(type, at, **data) for type, data in told], self._shows())

        fact, is_new = await mark(self._ctx, what, make)
        if not is_new:
            self.progress.tell(fact)
        return fact, is_new

    def _shows(self) -> dict[str, Any]:
        progress = self.progress
        shows = {"role": progress.role, "story": _json(redact(progress.story.model_dump()))}
        output = _json(progress.output()) if progress.results or progress.said else None
        if output != self._shown_output:
            shows["output"] = self._shown_output = output
        return shows

    async def leave(self) -> None:
        """Records that the role at work was cancelled."""
        async with self._ctx.shield(LAST_WORD_SECONDS):
            await self._tell("cancelled")

    # Roles

    def _packet(self) -> ContextPacket:
        """What the role at work was told: the packet of its handoff; for the first role, and for a planner whose plan
        was sent back since, one that says how things stand now."""
        handoffs = self.progress.story.handoffs
        if handoffs and handoffs[-1].context_packet.retry.number == self.progress.retries:
            return handoffs[-1].context_packet
        return make_packet(self.progress, "")

    async def _ask(self, role: str, prompt: str, step: PlanStep | None = None) -> str:
        said: str = redact(await self._speaking.ask(self._ctx, self.progress, role, prompt, step=step))
        return said

    async def _ask_for(self, kind: type[A], role: str, prompt: str, instructions: str | None = None) -> A:
        return await self._speaking.ask_for(kind, self._ctx, self.progress, role, prompt, instructions)

    async def _research(self) -> tuple[Ended, str | None]:
        store, x = self._ctx.entry.x.store, self._ctx.entry.x
        known = await self._ctx.step("recall", partial(store.recall, x.row, MEMORY_LIMIT))
        found = await self._ask_for(Findings, "researcher", texts.to_research(self._packet(), self.progress, known))
        items = [cut(item, ITEM_LIMIT) for item in redact(found.items)]
        await self._tell("remembered", role="researcher", items=items, snapshot_id=ids.new(ids.SNAPSHOT))
        return Ended("ok", f"{len(items)} findings"), "\n".join(items)

    async def _plan(self) -> tuple[Ended, str | None]:
        if self._inputs.get("steps") is not None:
            return await self._settle_plan("inputs", self._inputs["steps"]), None
        while True:
            asked = texts.to_plan(self._packet(), self.progress, self._config.tools_of(EXECUTOR))
            answer = await self._ask_for(PlanAnswer, PLANNER, asked)
            ended = await self._settle_plan("planner", [step.model_dump() for step in answer.steps])
            if ended.how != "retry" or self.progress.retries >= self._ctx.max_retries:
                return replace(ended, how="rejected") if ended.how == "retry" else ended, None
            await self._tell("plan.sent_back")

    async def _settle_plan(self, source: str, given: Any) -> Ended:
        """Makes the plan and has it reviewed: by the rules, and by the reviewer if there is one, which can send back a
        plan that a planner has made."""
        try:
            steps = steps_of(given)
        except BadPlan as error:
            return Ended("failed", str(error))
        found = objection_to(steps, self._speaking.plannable())
        shown = [step.model_dump() | {"description": cut(step.description, DESCRIPTION_LIMIT)} for step in steps]
        planned, _ = await self._tell(
            "planned", plan_id=ids.new(ids.PLAN), source=source, steps=shown[:STEP_LIMIT], objection=found
        )
        objection = planned.get("objection", found)
        verdict, by = PlanVerdict(outcome="approve", reason=f"{len(steps)} steps, which keep the rules"), "rules"
        if objection is not None:
            verdict = PlanVerdict(outcome="reject", reason=objection)
        elif REVIEWER in self.progress.brief.roles and source != "goal":
            verdict, by = await self._judge_plan(), REVIEWER
        outcome = "reject" if verdict.outcome == "retry" and source != "planner" else verdict.outcome
        reason, notes = cut(verdict.reason, REASON_LIMIT), cut(verdict.notes, REASON_LIMIT)
        await self._tell("plan.reviewed", outcome=outcome, reason=reason, notes=notes, by=by)
        if outcome == "approve":
            return Ended("ok", f"a plan of {len(steps)} steps")
        return Ended("retry" if outcome == "retry" else "rejected", reason)

    async def _judge_plan(self) -> PlanVerdict:
        asked = texts.to_review_plan(self._packet(), self.progress)
        try:
            return await self._ask_for(PlanVerdict, REVIEWER, asked, texts.PLAN_REVIEW)
        except Exception as error:
            self._need_to_be_its_own(error)
            if _ends_all(error):
                raise
            reason = f"the reviewer did not judge the plan: {describe(error)['message']}"
            return PlanVerdict(outcome="reject", reason=reason)

    async def _execute(self) -> tuple[Ended, str | None]:
        if self.progress.story.plan is None:
            given, source = self._inputs.get("steps"), "inputs"
            if given is None:
                given, source = [cut(self.progress.brief.goal, DESCRIPTION_LIMIT)], "goal"
            ended = await self._settle_plan(source, given)
            if ended.how != "ok":
                return ended, None
        failed: str | None = None
        for step in list(self.progress.steps):
            if failed is not None:
                await self._settle_step(step, "skipped", f"{failed}, so this one was not begun")
            elif step.workflow is not None:
                await self._settle_step(step, "skipped", f"it names the workflow {step.workflow!r}: {NO_WORKFLOWS}")
            elif (trouble := await self._carry_out(step)) is not None:
                failed = f"step {step.index} failed: {trouble}"
        if failed is not None:
            return Ended("failed", failed), None
        done = sum(step.status == "done" for step in self.progress.steps)
        return Ended("ok", f"{done} of {len(self.progress.steps)} steps done"), None

    async def _carry_out(self, step: PlanStep) -> str | None:
        """Does one step; what went wrong, if anything did."""
        try:
            said = await self._ask(EXECUTOR, texts.to_execute(self._packet(), self.progress, step), step)
            self._need_room(said)
        except Exception as error:
            self._need_to_be_its_own(error)
            note = await self._settle_step(step, "failed", cut(describe(error)["message"], REASON_LIMIT))
            if _ends_all(error):
                raise
            return note
        await self._settle_step(step, "done", None, said)
        return None

    def _need_room(self, said: str) -> None:
        """Raises if the run's output could not be recorded with this in it."""
        limit = self._ctx.entry.x.settings.output_limit_bytes
        if len(_json(self.progress.output())) + len(_json(said)) + OUTPUT_FRAME > limit:
            raise Final(
                "too_large",
                f"the work has more than the {limit} bytes that may be recorded; have it stored elsewhere",
            )

    async def _settle_step(
        self, step: PlanStep, status: str, note: str | None, output: str | None = None
    ) -> str | None:  # fmt: skip
        """Records how a step ended; the note that is recorded of it."""
        fact, is_new = await self._tell("step.done", index=step.index, status=status, note=note, output=output)
        if is_new:
            hit("plan.after_step")
        told: str | None = fact["note"]
        return told

    async def _review(self) -> tuple[Ended, str | None]:
        fact: dict[str, Any] = {"review_id": ids.new(ids.REVIEW)}
        try:
            verdict = await self._ask_for(Verdict, REVIEWER, texts.to_review(self._packet(), self.progress))
        except Exception as error:
            self._need_to_be_its_own(error)
            reason = cut(describe(error)["message"], REASON_LIMIT)
            await self._tell("reviewed", **fact, outcome="failed", reason=reason, confidence=None, notes="")
            raise
        _, is_new = await self._tell(
            "reviewed", **fact, outcome=verdict.outcome, reason=cut(verdict.reason, REASON_LIMIT),
            confidence=verdict.confidence, notes=cut(verdict.notes, REASON_LIMIT),
        )  # fmt: skip
        if is_new:
            hit("review.after")
        return Ended(_JUDGED[verdict.outcome], verdict.reason), None

    async def _do(self, role: str) -> tuple[Ended, str | None]:
        """The release role, and those of the configuration's own."""
        to_ask = texts.to_release if role == "release" else texts.to_do
        said = await self._ask(role, to_ask(self._packet(), self.progress))
        self._need_room(said)
        return Ended("ok", cut(said, 200)), said


class PipelineAgent:
    """Plans, carries out and reviews, by roles on a model."""

    def __init__(self, speaking: Speaking) -> None:
        self._speaking = speaking

    async def run(self, ctx: Context, goal: str, inputs: dict[str, Any]) -> Finished:
        """Runs the pipeline, from where its journal ends."""
        pipeline = Pipeline(ctx, self._speaking, goal, inputs)
        try:
            async with self._speaking.lasting(ctx):
                return await pipeline.run()
        except Final:
            raise
        except _FATAL:
            raise
        except Exception as error:  # Another attempt is not what `max_retries` means here.
            described = describe(error)
            raise Final(described["code"], described["message"], described["detail"]) from error
        except BaseException:
            if ctx.cancelled:
                await _quietly(pipeline)
            raise


async def _quietly(pipeline: Pipeline) -> None:
    try:
        await pipeline.leave()
    except Exception as error:  # The cancel that is on record goes on all the same.
        log.warning("handoff_not_closed", reason=f"{type(error).__name__}: {error}")


def _ends_all(error: BaseException) -> bool:
    """Whether no other role could do better: what the run may use is used up."""
    return code_of(error) == "budget_exceeded"


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()
