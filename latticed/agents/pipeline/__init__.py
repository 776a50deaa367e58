"""The role pipeline: a goal, a plan, its execution, its review."""

from latticed.agents.pipeline.agent import PipelineAgent

__all__ = ["PipelineAgent"]
