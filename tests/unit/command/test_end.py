"""Commands: the rungs of a cancel, and that nothing of a program stays behind."""

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest
import uvloop

from latticed.agents.command import CommandAgent, CommandFailed
from latticed.errors import Cancelled
from tests.unit.command.rig import STUBBORN, Children, FakeContext, Run, alive, config, marked
from tests.wait import eventually, wait_until


async def test_the_first_rung_is_sigint_to_the_whole_group(run: Run, ctx: FakeContext) -> None:
    child = "trap 'echo child; exit 0' INT; echo ready; while :; do sleep 0.01; done"
    script = f"import subprocess, sys; sys.exit(subprocess.call(['sh', '-c', {child!r}]))"
    parent = f"import signal; signal.signal(signal.SIGINT, lambda *_: print('parent', flush=True)); {script}"
    task = asyncio.ensure_future(run(sys.executable, "-c", parent))
    await eventually(lambda: ctx.lines() == ["ready"])
    assert ctx.climb is not None
    ctx.climb(1)
    await task
    assert sorted(ctx.lines()) == ["child", "parent", "ready"]


async def test_the_second_rung_is_sigterm_also_for_who_is_stopped(run: Run, ctx: FakeContext) -> None:
    task = asyncio.ensure_future(run("sh", "-c", "trap '' INT; echo pid $$; kill -STOP $$; echo on"))
    (pid,) = await eventually(lambda: ctx.pids(1))
    await eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    assert ctx.climb is not None
    ctx.climb(2)
    with pytest.raises(CommandFailed, match="SIGTERM"):
        async with asyncio.timeout(10):
            await task


async def test_the_third_rung_ends_a_program_that_ignores_the_others_and_all_that_it_started(
    run: Run, ctx: FakeContext, children: Children
) -> None:
    task = asyncio.ensure_future(run("sh", "-c", STUBBORN))
    pids = await eventually(lambda: ctx.pids(4))
    assert ctx.climb is not None
    ctx.climb(1)
    ctx.climb(2)
    guardian = psutil.Process(pids[0]).parents()
    assert all(map(alive, pids))
    ctx.climb(3)
    with pytest.raises(CommandFailed, match="SIGKILL"):
        await task
    assert not any(map(alive, pids))
    assert guardian
    assert children() == []


async def test_what_a_finished_program_left_running_is_ended_and_its_output_kept(run: Run, ctx: FakeContext) -> None:
    script = "(setsid sh -c 'echo pid $$; exec sleep 1000' &) ; while ! [ -e ok ]; do sleep 0.01; done; echo done"
    task = asyncio.ensure_future(run("sh", "-c", script))
    (pid,) = await eventually(lambda: ctx.pids(1))
    (Path(psutil.Process(pid).cwd()) / "ok").touch()
    assert (await task).endswith("done")
    assert not alive(pid)


async def test_a_stranger_who_holds_the_output_open_holds_up_nobody(run: Run, ctx: FakeContext) -> None:
    task = asyncio.ensure_future(run("sh", "-c", "echo pid $$; while ! [ -e ok ]; do sleep 0.01; done; echo done"))
    (pid,) = await eventually(lambda: ctx.pids(1))
    stranger = os.open(f"/proc/{pid}/fd/1", os.O_WRONLY)
    (Path(psutil.Process(pid).cwd()) / "ok").touch()
    try:
        async with asyncio.timeout(10):
            assert (await task).endswith("done")
    finally:
        os.close(stranger)


async def test_a_cancelled_task_ends_after_its_processes(run: Run, ctx: FakeContext) -> None:
    task = asyncio.ensure_future(run("sh", "-c", STUBBORN))
    pids = await eventually(lambda: ctx.pids(4))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not any(map(alive, pids))


async def test_a_slow_timeline_slows_the_program_down_and_loses_nothing(
    run: Run, ctx: FakeContext, tmp_path: Path, children: Children
) -> None:
    opened = asyncio.Event()
    asked = asyncio.Event()

    async def gate() -> None:
        asked.set()
        await opened.wait()

    ctx.gate = gate
    program = f"""
import os
for block in range(100):
    print("x" * 10_000, flush=True)
    open({str(tmp_path / "count")!r}, "a").write(".")
"""
    task = asyncio.ensure_future(run(sys.executable, "-c", program, limit=2 << 20))
    await asked.wait()
    (guardian,) = children()
    await eventually(lambda: any(p.status() == psutil.STATUS_SLEEPING for p in guardian.children()))
    assert len((tmp_path / "count").read_text()) < 60  # two chunks, the pipe, and no more
    opened.set()
    await task
    assert ctx.lines() == ["x" * 10_000] * 100


async def test_a_timeline_that_is_lost_ends_the_program(run: Run, ctx: FakeContext) -> None:
    class Fenced(Exception):
        pass

    async def fenced() -> None:
        raise Fenced

    ctx.gate = fenced
    with pytest.raises(Fenced):
        await run("sh", "-c", STUBBORN)
    assert not marked(ctx.run_id)


async def test_an_unwinding_run_says_no_more_and_lets_the_program_end(run: Run, ctx: FakeContext) -> None:
    async def cancelled() -> None:
        raise Cancelled

    ctx.gate = cancelled
    assert await run("sh", "-c", "seq 1 50000; exit 0", limit=10_000_000)
    assert ctx.events == []


async def test_no_descriptor_no_process_and_no_task_is_left(run: Run, tmp_path: Path, children: Children) -> None:
    await run("true")
    before = os.listdir("/proc/self/fd"), len(asyncio.all_tasks())
    for argv in (["true"], ["false"], ["/does/not/exist"], ["sh", "-c", "kill -9 $$"]):
        try:
            await run(*argv)
        except CommandFailed:
            continue
    await asyncio.gather(*(run("true") for _ in range(5)))
    assert (os.listdir("/proc/self/fd"), len(asyncio.all_tasks())) == before
    assert children() == []


async def test_a_guardian_that_is_told_to_end_takes_all_with_it(run: Run, ctx: FakeContext, children: Children) -> None:
    task = asyncio.ensure_future(run("sh", "-c", STUBBORN))
    pids = await eventually(lambda: ctx.pids(4))
    (guardian,) = children()
    guardian.terminate()
    with pytest.raises(CommandFailed, match="SIGKILL"):
        await task
    assert not any(map(alive, pids))


async def test_a_stopped_guardian_is_woken_for_its_orders(run: Run, ctx: FakeContext, children: Children) -> None:
    task = asyncio.ensure_future(run("sh", "-c", STUBBORN))
    pids = await eventually(lambda: ctx.pids(4))
    (guardian,) = children()
    guardian.suspend()
    assert ctx.climb is not None
    ctx.climb(3)
    with pytest.raises(CommandFailed, match="SIGKILL"):  # and not command_lost
        await task
    assert not any(map(alive, pids))


async def test_a_killed_guardian_is_noticed_and_what_it_guarded_is_ended(
    run: Run, ctx: FakeContext, children: Children
) -> None:
    script = (
        "sh -c 'echo pid $$; exec sleep 1000' & (setsid sh -c 'echo pid $$; exec sleep 1000' &) ; echo pid $$; wait"
    )
    task = asyncio.ensure_future(run("sh", "-c", script))
    pids = await eventually(lambda: ctx.pids(3))
    (guardian,) = children()
    guardian.kill()
    with pytest.raises(CommandFailed) as caught:
        await task
    assert caught.value.code == "command_lost"
    wait_until(lambda: not any(map(alive, pids)))


async def test_it_works_on_uvloop_as_well(tmp_path: Path) -> None:
    async def both() -> tuple[str, list[int]]:
        ctx = FakeContext()
        agent = CommandAgent(config("sh", "-c", STUBBORN), "a", tmp_path)
        task = asyncio.ensure_future(agent.run(ctx, "goal", {}))
        pids = await eventually(lambda: ctx.pids(4))
        assert ctx.climb is not None
        ctx.climb(3)
        with pytest.raises(CommandFailed, match="SIGKILL"):
            await task
        assert not any(map(alive, pids))
        return await CommandAgent(config("seq", "1", "100000"), "a", tmp_path).run(FakeContext(), "goal", {})

    said = await asyncio.to_thread(uvloop.run, both())
    assert str(said).endswith("100000")
