"""Where a tool call meets the hooks: `pre_tool` before it, `post_tool` after it.

The one place: `calls.Calls` asks here for every tool call, with the arguments that are about to be used. Both are
asked outside of the call's step and in the call's own branch of the journal, whose path tells the call from every
other of the run.
"""

from typing import Any

from latticed.engine.context import Context


async def pre_tool(ctx: Context, tool: str, args: dict[str, Any]) -> dict[str, Any] | str:
    """The arguments to call the tool with, or, as a text, why it must not be called: the model is told."""
    chain = ctx.entry.x.chain
    if chain is None:
        return args
    verdict = await chain.before("pre_tool", ctx.entry.x, {"name": tool, "args": args}, ctx.entry.branch().path)
    if verdict.hook is not None:
        return f"{verdict.hook}: {verdict.reason}"
    changed: dict[str, Any] = verdict.changes.get("args", args)
    return changed


async def post_tool(ctx: Context, tool: str, args: dict[str, Any], answer: dict[str, Any]) -> None:
    """A call has been answered; `answer` is what is recorded of that, with `failed` in it if it failed."""
    chain = ctx.entry.x.chain
    if chain is not None:
        subject = {"name": tool, "args": args, "answer": answer}
        await chain.after("post_tool", ctx.entry.x, subject, ctx.entry.branch().path)
