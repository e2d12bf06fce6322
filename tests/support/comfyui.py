"""A real ComfyUI, without its web server, and tiny networks of the kinds that people sample with it.

Its folder is named by the environment variable ``FEWSTEP_COMFYUI``.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from support.torchvision import usable_torchvision

CONTEXT, POOLED = 16, 32


def boot(folder: str, work: Path, custom_node: Path) -> ComfyUI:
    """Return ComfyUI from its folder, with all files it reads and writes in ``work``, and a folder of nodes loaded."""
    usable_torchvision()
    sys.path.insert(0, folder)
    argv, sys.argv = sys.argv, ["comfyui", "--cpu"]
    try:
        options = importlib.import_module("comfy.options")
        options.enable_args_parsing(True)
        for name in ("comfy.samplers", "comfy.sample", "comfy.model_base", "comfy.supported_models", "comfy.utils"):
            importlib.import_module(name)
        paths = importlib.import_module("folder_paths")
        paths.models_dir = str(work / "models")
        (work / "models" / "fewstep").mkdir(parents=True)
        (work / "output").mkdir()
        paths.set_output_directory(str(work / "output"))
        nodes, execution = (importlib.import_module(name) for name in ("nodes", "execution"))
    finally:
        sys.argv = argv
    for extra in ("nodes_custom_sampler", "nodes_model_advanced", "nodes_flux", "nodes_sd3", "nodes_latent"):
        _load(nodes, str(Path(folder) / "comfy_extras" / f"{extra}.py"))
    assert _load(nodes, str(custom_node)), "ComfyUI did not load our nodes"
    world = ComfyUI(nodes, execution, work)
    nodes.NODE_CLASS_MAPPINGS["Keep"] = _keep(world.kept)
    return world


def _load(nodes: Any, path: str) -> bool:
    return asyncio.run(nodes.load_custom_node(path, module_parent="tests"))


class _Server:
    """What an execution tells the browser, kept."""

    def __init__(self) -> None:
        self.client_id, self.last_node_id, self.sent = None, None, []

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        self.sent.append((event, data))

    def queue_updated(self) -> None:
        pass


def _keep(kept: dict[str, Any]) -> type:
    class Keep:
        """An output node that keeps what it is given."""

        RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "keep", True, "tests"

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {"value": ("*",), "name": ("STRING", {"default": "value"})}}

        @classmethod
        def VALIDATE_INPUTS(cls, input_types: Any) -> bool:
            return True

        @classmethod
        def IS_CHANGED(cls, **inputs: Any) -> float:
            return float("nan")

        def keep(self, value: Any, name: str) -> dict[str, Any]:
            kept[name] = value
            return {}

    return Keep


def _holding(kinds: tuple[str, ...], values: tuple[Any, ...]) -> type:
    class Holding:
        """A node with ready outputs."""

        RETURN_TYPES, FUNCTION, CATEGORY = kinds, "give", "tests"

        @classmethod
        def INPUT_TYPES(cls) -> dict[str, Any]:
            return {"required": {}}

        def give(self) -> tuple[Any, ...]:
            return values

    return Holding


@dataclass
class ComfyUI:
    """The modules of a running ComfyUI, and one way to run a graph."""

    nodes: Any
    execution: Any
    work: Path
    kept: dict[str, Any] = field(default_factory=dict)
    server: _Server = field(default_factory=_Server)
    models: dict[str, Any] = field(default_factory=dict)

    def run(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """Validate and execute a graph in the API's format; return what its Keep nodes were given."""
        valid = asyncio.run(self.execution.validate_prompt(str(uuid.uuid4()), prompt, None))
        if not valid[0]:
            raise AssertionError(f"ComfyUI refuses the graph: {valid[1]}, {valid[3]}")
        self.kept.clear()
        self.server.sent.clear()
        executor = self.execution.PromptExecutor(self.server)
        executor.execute(prompt, str(uuid.uuid4()), {"client_id": "tests"}, valid[2])
        errors = [data for event, data in self.server.sent if event == "execution_error"]
        if errors:
            raise RuntimeError(f"{errors[0]['node_type']}: {errors[0]['exception_message']}")
        return dict(self.kept)

    def hold(self, **values: Any) -> str:
        """Return the name of a node that gives the values, each of the kind it is named by."""
        name = f"Holding{len(self.nodes.NODE_CLASS_MAPPINGS)}"
        self.nodes.NODE_CLASS_MAPPINGS[name] = _holding(tuple(values), tuple(values.values()))
        return name

    def prompt_of(self, workflow: dict[str, Any]) -> dict[str, Any]:
        """Return a workflow as the browser saves it in the form that the API takes, as the browser would send it."""
        links = {number: [str(source), slot] for number, source, slot, *_ in workflow["links"]}
        prompt = {}
        for node in workflow["nodes"]:
            known = self.nodes.NODE_CLASS_MAPPINGS[node["type"]].INPUT_TYPES()
            inputs = {given["name"]: links[given["link"]] for given in node["inputs"] if given["link"] is not None}
            values = iter(node["widgets_values"])
            for name, (kind, *options) in {**known["required"], **known.get("optional", {})}.items():
                if isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
                    inputs[name] = next(values)
                    if options and options[0].get("control_after_generate"):
                        next(values)
            assert not list(values), f"{node['type']} has more values than widgets"
            prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
        return prompt

    def model(self, kind: str) -> Any:
        """Return a tiny MODEL of a kind, always the same one; see ``KINDS``."""
        if kind not in self.models:
            self.models[kind] = _patcher(KINDS[kind]())
        return self.models[kind].clone()

    def conditioning(self, kind: str, seed: int) -> list[Any]:
        """Return a conditioning of random embeddings."""
        generator = torch.Generator().manual_seed(seed)
        pooled = 1280 if kind.startswith("sdxl") or kind == "edm" else POOLED
        tokens = torch.randn(1, 5, CONTEXT, generator=generator)
        return [[tokens, {"pooled_output": torch.randn(1, pooled, generator=generator)}]]


def _patcher(model: Any) -> Any:
    """Return a model of small random weights as a ModelPatcher."""
    patching = importlib.import_module("comfy.model_patcher")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.diffusion_model.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        scale = 1.0 if "norm" in name and parameter.ndim == 1 else 0.4 / max(parameter[0].numel(), 1) ** 0.5
        parameter.data = scale * drawn if parameter.ndim > 1 else 0.02 * drawn
    for module in model.diffusion_model.modules():
        if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
            module.weight.data.fill_(1.0)
    model.eval()
    cpu = torch.device("cpu")
    return patching.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def _unet(**settings: Any) -> dict[str, Any]:
    return {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [0, 1],
        "transformer_depth_output": [0, 0, 1, 1],
        "transformer_depth_middle": 1,
        "context_dim": CONTEXT,
        "use_spatial_transformer": True,
        "legacy": False,
        "dtype": torch.float32,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        **settings,
    }


def _sd15(kind: str = "EPS", **sampling: Any) -> Any:
    supported, base = (importlib.import_module(f"comfy.{name}") for name in ("supported_models", "model_base"))
    config = supported.SD15(_unet())
    config.unet_config.update(num_heads=2, num_head_channels=-1)
    config.sampling_settings.update(sampling)
    return base.BaseModel(config, model_type=base.ModelType[kind], device="cpu")


def _sdxl(kind: str = "EPS", **sampling: Any) -> Any:
    supported, base = (importlib.import_module(f"comfy.{name}") for name in ("supported_models", "model_base"))
    extra = {"adm_in_channels": 256 * 6 + 1280, "num_classes": "sequential", "use_linear_in_transformer": True}
    config = supported.SDXL(_unet(**extra))
    config.unet_config.update(num_heads=2, num_head_channels=-1)
    config.sampling_settings.update(sampling)
    return base.SDXL(config, model_type=base.ModelType[kind], device="cpu")


def _sd3() -> Any:
    supported, base = (importlib.import_module(f"comfy.{name}") for name in ("supported_models", "model_base"))
    embedder = {"target": "torch.nn.Linear", "params": {"in_features": CONTEXT, "out_features": 128}}
    settings = {
        "in_channels": 16,
        "patch_size": 2,
        "depth": 2,
        "adm_in_channels": POOLED,
        "context_embedder_config": embedder,
        "num_patches": 1024,
        "pos_embed_max_size": 32,
        "pos_embed_scaling_factor": None,
        "input_size": None,
        "dtype": torch.float32,
    }
    return base.SD3(supported.SD3(settings), device="cpu")


def _flux() -> Any:
    supported, base = (importlib.import_module(f"comfy.{name}") for name in ("supported_models", "model_base"))
    settings = {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "vec_in_dim": POOLED,
        "context_in_dim": CONTEXT,
        "hidden_size": 64,
        "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [8, 12, 12],
        "theta": 10000,
        "patch_size": 2,
        "qkv_bias": True,
        "guidance_embed": True,
        "dtype": torch.float32,
    }
    return base.Flux(supported.Flux(settings), device="cpu")


KINDS = {
    "sd15": _sd15,
    "sd15-v": lambda: _sd15("V_PREDICTION"),
    "sdxl": _sdxl,
    "sdxl-zsnr": lambda: _sdxl("V_PREDICTION", zsnr=True),
    "edm": lambda: _sdxl("EDM", sigma_data=0.5, sigma_min=0.002, sigma_max=80.0),
    "sd3": _sd3,
    "flux": _flux,
}
