"""The block `geometry` of a recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from isorobust.common.params import Count, Settings


class GeometrySettings(Settings):
    """On how many of the first test images each part is measured. All distances are Euclidean."""

    images: Annotated[int, Field(ge=2)]  # whose pairwise distances are compared
    neighbours: Count  # k nearest of the class: for their overlap and for the distortion around an image
    jacobian_images: Count
    boundary_images: Annotated[int, Field(ge=2)]  # whose distance to the decision boundary is searched for
    fab_steps: Count  # of that search
    bins: Count  # of boundary distance, with as many images each

    @model_validator(mode="after")
    def _inside(self) -> GeometrySettings:
        for name in ("jacobian_images", "boundary_images"):
            if getattr(self, name) > self.images:
                raise ValueError(f"{name} of at most images, {self.images}")
        if self.bins > self.boundary_images:
            raise ValueError(f"bins of at most boundary_images, {self.boundary_images}")
        return self
