"""The tables of the package: settings of the published sizes, and files that are wrong answered in a sentence."""

import json
import re
from dataclasses import replace

import pytest
import torch

from fewstep import grids, processes, reproduction, solvers
from fewstep.errors import InputError
from fewstep.models.guided_diffusion import UNetModel
from fewstep.models.latent_diffusion import ClassConditional
from fewstep.models.score_sde import DDPMPlusPlus
from fewstep.reproduction.files import sha256_of

PROCESSES = {
    "adm": processes.VPDiscrete.from_betas(schedule="cosine"),
    "dit": processes.VPDiscrete.from_betas(),
    "edm": processes.EDM(),
    "latent-diffusion": processes.VPDiscrete.from_betas(0.0015, 0.0195, schedule="scaled_linear"),
    "score-sde": processes.VPLinear(),
}


@pytest.mark.parametrize("name", reproduction.NAMES)
def test_every_row_can_be_planned_in_its_number_of_calls(name):
    """But for the published search for time steps, which takes seconds a row: the quick one is in its place."""
    table = reproduction.named(name)
    for row in table.rows:
        solver, grid = solvers.named(row.solver), row.grid.replace(",method=trust-constr", "")
        if row.steps > 7 and "optimized" in grid:
            continue
        plan = solver.plan(grids.named(grid, PROCESSES[table.network.kind], row.steps, solver=solver))
        assert plan.nfe == row.calls
    assert all(file.url.startswith("https://") for file in (*table.files, table.reference))
    assert any("not entered" in note for note in table.notes) or all(row.paper for row in table.rows)


def test_the_bound_has_the_power_of_the_space_and_the_papers_search():
    for name in reproduction.NAMES:
        table = reproduction.named(name)
        for row in table.rows:
            if row.grid.startswith("optimized"):
                power = 2 if table.network.kind == "dit" else 1
                assert f"objective=bound,method=trust-constr,error_power={power}" in row.grid


def weights_of(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("name", "make", "millions"),
    [
        # As the papers give them: ADM's table 3 (2105.05233), latent-diffusion's table 13 (2112.10752).
        ("optimized-steps-imagenet64", lambda network: UNetModel(network.settings), 296),
        ("sa-solver-imagenet256-ldm", lambda network: ClassConditional(network.settings, 512).unet, 401),
        ("optimized-steps-cifar10", lambda network: DDPMPlusPlus(network.settings), 107),
    ],
)
def test_networks_have_as_many_weights_as_those_published(name, make, millions):
    with torch.device("meta"):
        made = make(reproduction.named(name).network)
    assert round(weights_of(made) / 1e6) == millions


def test_a_transformer_of_the_table_is_dit_xl_2():
    """675 million weights (2212.09748, table 1), of which diffusers has a condition's layers in each block."""
    from diffusers import DiTTransformer2DModel

    found = reproduction.named("sa-solver-imagenet256-dit").network.settings
    with torch.device("meta"):
        network = DiTTransformer2DModel(
            found.heads, found.head_channels, found.channels, 2 * found.channels, found.depth,
            sample_size=found.size, patch_size=found.patch, num_embeds_ada_norm=found.classes,
        )  # fmt: skip
    condition = weights_of(network.transformer_blocks[0].norm1.emb)
    places = (found.size // found.patch) ** 2 * found.heads * found.head_channels
    assert round((weights_of(network) - (found.depth - 1) * condition + places) / 1e6) == 675


def changed(*path: object, to: object = None) -> str:
    """Return the JSON of a table with a field changed, or left out."""
    table = json.loads(reproduction.named("optimized-steps-imagenet64").model_dump_json())
    inner = table
    for key in path[:-1]:
        inner = inner[key]
    if to is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return json.dumps(table)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "no format"),
        (changed("format", to="fewstep-plan/1"), "this version of fewstep reads"),
        (changed("rows"), "rows is missing"),
        (changed("rows", to=[]), "rows"),
        (changed("more", to=1), "more is unknown"),
        (changed("rows", 0, "steps", to="5"), "rows\\[0\\].steps"),
        (changed("rows", 0, "name", to="../up"), "rows\\[0\\].name"),
        (changed("rows", 1, "name", to="unipc-uniform-5"), "two rows 'unipc-uniform-5'"),
        (changed("files", 0, "name", to="../weights.pt"), "files\\[0\\].name"),
        (changed("files", 0, "name", to="other.pt"), "not among the table's files"),
        (changed("files", 0, "sha256", to="abc"), "sha256"),
        (changed("network", "kind", to="gan"), "network is .* 'gan'"),
        (changed("network", "settings", "width", to="192"), "width"),
        (changed("network", "settings", "depth", to=3), "depth is unknown"),
        (changed("samples", to=0), "samples"),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence(text, answer, tmp_path):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(InputError, match=answer):
        reproduction.named(str(tmp_path / "table.json"))


def test_settings_that_make_no_network_are_one_sentence(tmp_path):
    table = reproduction.named("optimized-steps-imagenet64").network
    torch.save({"a": torch.zeros(1)}, tmp_path / table.file)
    for settings in ({"width": -1}, {"width": 33}, {"multipliers": []}, {"head_channels": 0}):
        wrong = table.model_copy(update={"settings": replace(table.settings, **settings)})
        with pytest.raises(InputError, match="of the network|of another network"):
            wrong.load(tmp_path, "cpu")


def test_the_hash_in_a_files_name_counts(tmp_path):
    """As torch's hub names its files, Inception's among them."""
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    path.write_bytes(b"other weights")
    with pytest.raises(InputError, match="is not the published file: its SHA-256 is [0-9a-f]{8}, not 6726825d"):
        reproduction.checked_files([reproduction.Wanted(path, "https://example.org")])
    right = tmp_path / f"file-{sha256_of(path)[:8]}.pth"
    path.rename(right)
    assert reproduction.checked_files([reproduction.Wanted(right, "")]) == {right.name: sha256_of(right)}


def test_names_of_tables_are_words():
    assert all(re.fullmatch("[a-z0-9-]+", name) for name in reproduction.NAMES) and len(reproduction.NAMES) == 10
