"""Files in the shape of published models, weights made up: header and tensor table. `bench.synth` writes the blocks."""

from ggufphys.synth.catalogue import Shape, shape_named, shapes
from ggufphys.synth.plan import SynthPlan, plan_file

__all__ = ["Shape", "SynthPlan", "plan_file", "shape_named", "shapes"]
