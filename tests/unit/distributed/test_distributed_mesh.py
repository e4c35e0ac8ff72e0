"""What a rank knows of the mesh without any group: who leads, and a group of one."""

import pytest
import torch

from rlpt.distributed.mesh import Axis, Mesh


def mesh(rank, tensor, data, pipeline):
    """The mesh as `rank` sees it: tensor ranks are neighbours, then data, then pipeline."""
    place = rank % tensor, rank // tensor % data, rank // (tensor * data)
    return Mesh(
        tensor=Axis(place[0], tensor, None),
        pipeline=Axis(place[2], pipeline, None),
        data=Axis(place[1], data, None),
        model=Axis(0, tensor * pipeline, None),
        world=Axis(rank, tensor * data * pipeline, None),
        torch_device=torch.device("cpu"),
    )


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 2), (2, 1, 4)])
def test_exactly_one_rank_is_primary_and_every_rank_knows_it(shape):
    size = shape[0] * shape[1] * shape[2]
    ranks = [mesh(rank, *shape) for rank in range(size)]
    primary = [one.world.rank for one in ranks if one.is_primary]
    assert primary == [ranks[0].primary_rank]
    assert {one.primary_rank for one in ranks} == set(primary)
    assert ranks[primary[0]].is_last_stage


def test_a_single_rank_is_a_group_of_one():
    axis = Axis(0, 1, None)
    value = torch.tensor([3.0])
    assert axis.all_reduce(value) is value
    assert axis.gather_objects({"a": 1}) == [{"a": 1}]
    assert axis.all_gather(value).tolist() == [[3.0]]
    one = mesh(0, 1, 1, 1)
    assert one.broadcast_from_last_stage(value) is value
    assert one.is_first_stage
    assert one.is_last_stage
