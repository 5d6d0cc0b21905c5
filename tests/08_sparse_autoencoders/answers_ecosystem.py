"""Wrong and right answers for reading and writing dictionaries in the format of sae_lens."""

import torch

from utils.course.catalogue import right, wrong

NAMES = ("standard", "topk", "jumprelu", "gated")


def refuse(architecture, k=None):
    if architecture not in NAMES or (architecture == "topk" and k is None):
        raise ValueError(f"{architecture} can't be written")


def config_of(parameters, architecture, site, model_name, k):
    config = {
        "architecture": architecture, "d_in": parameters["W_enc"].shape[0], "d_sae": parameters["W_enc"].shape[1],
        "dtype": "float32", "apply_b_dec_to_input": False, "normalize_activations": "none",
        "metadata": {"model_name": model_name, "hook_name": site, "sae_lens_version": "6.0.0"},
    }  # fmt: skip
    return config | ({"k": k, "rescale_acts_by_decoder_norm": False} if architecture == "topk" else {})


def tensors(parameters):
    return {name: value.detach().float().contiguous() for name, value in parameters.items()}


@wrong(
    "export_to_sae_lens",
    "You leave `apply_b_dec_to_input` out, or True: whoever loads the dictionary will subtract b_dec before the "
    "encoder, and get other latents.",
)
def subtracts(parameters, architecture, *, site, model_name, k=None):
    refuse(architecture, k)
    config = config_of(parameters, architecture, site, model_name, k) | {"apply_b_dec_to_input": True}
    return config, tensors(parameters)


@wrong(
    "export_to_sae_lens",
    "The two sizes are the wrong way round: W_enc is [d_in, d_sae].",
)
def sizes_swapped(parameters, architecture, *, site, model_name, k=None):
    refuse(architecture, k)
    config = config_of(parameters, architecture, site, model_name, k)
    return config | {"d_in": config["d_sae"], "d_sae": config["d_in"]}, tensors(parameters)


@wrong(
    "export_to_sae_lens",
    "Your tensors are not all contiguous. A transposed matrix is a view with other strides, and safetensors refuses to "
    "save it.",
)
def as_they_lie(parameters, architecture, *, site, model_name, k=None):
    refuse(architecture, k)
    config = config_of(parameters, architecture, site, model_name, k)
    return config, {name: value.detach().float() for name, value in parameters.items()}


@wrong("export_to_sae_lens", "You keep the parameters' dtype, and the configuration says float32.")
def keeps_dtype(parameters, architecture, *, site, model_name, k=None):
    refuse(architecture, k)
    config = config_of(parameters, architecture, site, model_name, k)
    return config, {name: value.detach().contiguous() for name, value in parameters.items()}


@wrong("export_to_sae_lens", "Your tensors carry a graph: detach them.")
def with_graph(parameters, architecture, *, site, model_name, k=None):
    refuse(architecture, k)
    config = config_of(parameters, architecture, site, model_name, k)
    return config, {name: value.float().contiguous() for name, value in parameters.items()}


@wrong(
    "export_to_sae_lens",
    "All your dictionaries have a k, also those that are not TopK: such a key belongs to that architecture alone.",
)
def always_k(parameters, architecture, *, site, model_name, k=None):
    refuse(architecture, k)
    config = config_of(parameters, architecture, site, model_name, k)
    return config | {"k": k, "rescale_acts_by_decoder_norm": False}, tensors(parameters)


@wrong(
    "export_to_sae_lens",
    "The names of model and hook point stand outside `metadata`, where nobody looks for them.",
)
def flat_metadata(parameters, architecture, *, site, model_name, k=None):
    refuse(architecture, k)
    config = config_of(parameters, architecture, site, model_name, k)
    return config | config.pop("metadata"), tensors(parameters)


@wrong(
    "export_to_sae_lens",
    "You write whatever you are given: an unknown architecture, or a TopK without k, has to be refused.",
)
def unchecked(parameters, architecture, *, site, model_name, k=None):
    return config_of(parameters, architecture, site, model_name, k), tensors(parameters)


@right("export_to_sae_lens")
def piece_by_piece(parameters, architecture, *, site, model_name, k=None):
    """Without helpers, clones in place of contiguous views."""
    known = {"standard", "topk", "jumprelu", "gated"}
    if architecture not in known:
        raise ValueError(architecture)
    d_sae, d_in = parameters["W_dec"].shape
    config = dict(architecture=architecture, d_in=d_in, d_sae=d_sae, dtype="float32")
    config["apply_b_dec_to_input"] = False
    config["normalize_activations"] = "none"
    config["metadata"] = dict(hook_name=site, model_name=model_name, sae_lens_version="6.0.0")
    if architecture == "topk":
        if k is None:
            raise ValueError("k")
        config["k"], config["rescale_acts_by_decoder_norm"] = k, False
    weights = {}
    with torch.no_grad():
        for name in parameters:
            weights[name] = parameters[name].to(torch.float32).clone(memory_format=torch.contiguous_format).detach()
    return config, weights


def loaded(config, weights, *, default=True, sign=-1, bias_first=False, gated="all", rescale=True, decoder=True,
           check=True, known=NAMES, rescaled=("topk",), message="can't work in {} with {}"):  # fmt: skip
    architecture, normalised = config.get("architecture", "standard"), config.get("normalize_activations", "none")
    if check and (architecture not in known or normalised != "none"):
        raise ValueError(message.format(architecture, normalised))
    ours = {name: value.float().clone() for name, value in weights.items()}

    def subtract():
        if config.get("apply_b_dec_to_input", default):
            shift = ours["b_dec"] @ ours["W_enc"]
            if architecture == "gated":
                ours["b_gate"] = ours["b_gate"] + sign * shift
                if gated != "gate only":
                    ours["b_mag"] = ours["b_mag"] + sign * shift * (ours["r_mag"].exp() if gated == "all" else 1)
            else:
                ours["b_enc"] = ours["b_enc"] + sign * shift

    if not bias_first:
        subtract()
    if rescale and architecture in rescaled and config.get("rescale_acts_by_decoder_norm", False):
        length = ours["W_dec"].norm(dim=1)
        ours["W_enc"] = ours["W_enc"] * length
        if not bias_first and "b_enc" in ours:
            ours["b_enc"] = ours["b_enc"] * length
        if decoder:
            ours["W_dec"] = ours["W_dec"] / length[:, None]
    if bias_first:
        subtract()
    return ours


@wrong(
    "load_pretrained_sae",
    "Where nothing is said about it, you leave b_dec alone. sae_lens subtracts it unless it is told not to.",
)
def other_default(config, weights):
    return loaded(config, weights, default=False)


@wrong("load_pretrained_sae", "You add b_dec W_enc to the bias. Their encoder reads x less b_dec.")
def wrong_sign(config, weights):
    return loaded(config, weights, sign=1)


@wrong("load_pretrained_sae", "You work nothing in: subtracted or not, the parameters come out as they went in.")
def as_it_is(config, weights):
    loaded(config, weights)
    return {name: value.float().clone() for name, value in weights.items()}


@wrong(
    "load_pretrained_sae",
    "You mend the gate of a gated dictionary and not its magnitudes, which read x - b_dec, too.",
)
def gate_only(config, weights):
    return loaded(config, weights, gated="gate only")


@wrong(
    "load_pretrained_sae",
    "The magnitudes of a gated dictionary read with W_enc exp(r_mag), so that b_dec arrives there times exp(r_mag).",
)
def without_r_mag(config, weights):
    return loaded(config, weights, gated="same")


@wrong(
    "load_pretrained_sae", "You ignore `rescale_acts_by_decoder_norm`: which latents are the k largest changes with it."
)
def no_rescaling(config, weights):
    return loaded(config, weights, rescale=False)


@wrong(
    "load_pretrained_sae",
    "You rescale the encoder and not the decoder: latents are right, and the reconstruction is not.",
)
def encoder_only(config, weights):
    return loaded(config, weights, decoder=False)


@wrong(
    "load_pretrained_sae",
    "You rescale W_enc and not the bias: pre-activations are multiplied as a whole.",
)
def bias_not_rescaled(config, weights):
    return loaded(config, weights, bias_first=True)


@wrong(
    "load_pretrained_sae",
    "You load what you can't compute: an unknown architecture, or one that normalises its input first.",
)
def unchecked_load(config, weights):
    return loaded(config, weights, check=False)


@wrong(
    "load_pretrained_sae",
    "You rescale whatever the architecture. Only TopK dictionaries have this habit: for others the key says nothing.",
)
def all_rescaled(config, weights):
    return loaded(config, weights, rescaled=NAMES)


@wrong("load_pretrained_sae", "You refuse without saying what you have met. Whoever reads the message needs its name.")
def refuses_without_a_name(config, weights):
    return loaded(config, weights, message="this can't be worked in")


@wrong(
    "load_pretrained_sae",
    "You set b_dec to 0. Only the encoder is to do without it: the decoder still adds it to every reconstruction.",
)
def without_b_dec(config, weights):
    ours = loaded(config, weights)
    if config.get("apply_b_dec_to_input", True):
        ours["b_dec"] = torch.zeros_like(ours["b_dec"])
    return ours


@right("load_pretrained_sae")
def through_the_encoder(config, weights):
    """The bias as the pre-activation at x = 0."""
    kind = config.get("architecture") or "standard"
    if kind not in {"standard", "topk", "jumprelu", "gated"}:
        raise ValueError(kind)
    if config.get("normalize_activations") not in (None, "none"):
        raise ValueError(config["normalize_activations"])
    out = {name: value.to(torch.float32) + 0 for name, value in weights.items()}
    origin = -out["b_dec"] if config.get("apply_b_dec_to_input", True) else torch.zeros_like(out["b_dec"])
    if kind == "gated":
        out["b_gate"] = origin @ out["W_enc"] + out["b_gate"]
        out["b_mag"] = origin @ (out["W_enc"] * out["r_mag"].exp()) + out["b_mag"]
    else:
        out["b_enc"] = origin @ out["W_enc"] + out["b_enc"]
    if kind == "topk" and config.get("rescale_acts_by_decoder_norm"):
        size = out["W_dec"].pow(2).sum(1).sqrt()
        out |= {"W_enc": out["W_enc"] * size, "b_enc": out["b_enc"] * size, "W_dec": out["W_dec"] / size.unsqueeze(1)}
    return out
