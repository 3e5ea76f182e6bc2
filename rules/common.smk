# What rules share: the checked study and the functions that turn names into files. No rules here.
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.io import regex_from_filepattern

ROOT = Path(workflow.current_basedir).parent
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from diffalign import names
from diffalign.config import study
from diffalign.plan import targets
from diffalign.alignment.metrics import METRICS as KNOWN_METRICS
from diffalign.conditions import CLEAN
from diffalign.models import families, precomputed
from diffalign.names import any_of
from diffalign.specs import TEXTS_OF_IMAGES, without_defaults
from diffalign.code_digests import code_digest
from diffalign.provenance import files_digest, folder_digest
from diffalign.io.sides import reads

SCRIPTS = ROOT / "workflow_scripts"
MODELS_CODE = SCRIPTS / "diffalign" / "models"

FAMILIES = families()
try:
    STUDY = study.load(
        config,
        yaml.load((ROOT / "schemas" / "config.schema.yaml").read_text(), yaml.CSafeLoader),
        FAMILIES,
        KNOWN_METRICS,
    )
except study.ConfigError as error:
    files = " + ".join(str(path) for path in workflow.configfiles)
    raise WorkflowError(f"The configuration ({files}) has {len(error.mistakes)} mistake(s):\n{error}") from None

METRICS = STUDY.alignment.metrics
TYPED = names.name_pattern(STUDY.models)
# a model and variant, and the same with or without a layer
NAME = names.name_pattern(STUDY.models, layer=True)
IMAGES = "results/images/{dataset}/{condition}"
LATENTS = "results/latents/{dataset}/{condition}/{model}"
FEATURES = "results/features/{dataset}/{condition}/{bundle}"
NEIGHBORS = "results/neighbors/{dataset}/{condition}/{bundle}"
UNPOOLED = "results/unpooled/{dataset}/{condition}/{bundle}"
FACTORS = "results/factors/{dataset}/{condition}/{bundle}"
# of language models a job makes two bundles, that of means over tokens and that of last tokens; both are found by the first.
# A wildcard of its own: Snakemake passes one of the same name on, and holds it against the beginning of its constraint
MEANS = FEATURES.replace("{bundle}", "{means}")
LANGUAGE = "results/language/{dataset}/{condition}/{means}"
WEIGHTS = "resources/weights/{model}"
# of the untrained twin of a model
UNTRAINED = f"{WEIGHTS}-untrained"
EXPORT = "results/export"
DOWNLOADED = "resources/features/{model}"
# what one job of an extraction makes: a bundle, or a part of its images where jobs share it
EXTRACTED = "{bundle}/{part}-of-{parts}" if STUDY.extraction_shards > 1 else "{bundle}"


def with_images():
    """A pattern of the data sets that have images."""
    return any_of_or_none(name for name, dataset in STUDY.datasets.items() if dataset.has_images)


def with_concepts_alone():
    """A pattern of the data sets of concepts that have no images."""
    return any_of_or_none(name for name in STUDY.things if not STUDY.datasets[name].has_images)


def concepts_of(wildcards):
    """The list of concepts of a data set; None for others."""
    things = STUDY.things.get(wildcards.dataset)
    return None if things is None else asdict(things.concepts)


def human_sources():
    """What people chose of a target's data set and where its objects are listed, as parameters."""
    return {
        "concepts": concepts_of,
        "triplets": lambda w: asdict(human_triplets(w.dataset, w.triplets)),
        "dimensions": lambda w: (
            asdict(STUDY.things[w.dataset].dimensions) if STUDY.things[w.dataset].dimensions else None
        ),
    }


def similarities_of(wildcards):
    """Where similarities of people are of the objects of a data set, as parameters."""
    found = STUDY.things[wildcards.dataset].similarities
    if found is None:
        raise ValueError(f"datasets.{wildcards.dataset}.similarities says of no objects how alike people find them")
    return asdict(found)


def similarity_files(wildcards):
    """A digest of these files, to notice a change."""
    found = similarities_of(wildcards)
    return files_digest([Path(found["path"]), Path(found["names"])])


def human_triplets(dataset, word):
    """One of a data set's files of choices."""
    known = STUDY.things[dataset].triplets
    if word not in known:
        raise names.unknown("file of triplets", word, known)
    return known[word]


def human_paths(dataset, word):
    """The files that people's choices and dimensions are read from."""
    things = STUDY.things[dataset]
    sources = (things.concepts, human_triplets(dataset, word), things.dimensions)
    return [Path(source.path) for source in sources if source is not None]


def features_and_people(wildcards):
    """The features of a bundle, and what people chose of the same objects."""
    where = dict(wildcards.items())
    if where["dataset"] not in STUDY.things:
        raise ValueError(f"the data set '{where['dataset']}' is not of kind things, so people chose nothing of it")
    return {
        "layers": f"{FEATURES}/layers.json".format(**where),
        "people": f"results/people/{where['dataset']}/{STUDY.human.triplets}.npz",
    }


def features_and_people_of_a_layer(wildcards):
    """The same for a typed name, and the pictures of the objects where there are any."""
    files = features_and_people({**dict(wildcards.items()), "bundle": STUDY.bundle(wildcards.a)})
    return {**files, **(pictures(wildcards) if STUDY.datasets[wildcards.dataset].has_images else {})}


def combined_features(wildcards):
    """The features of the layers of a combination, and what people chose of the same objects."""
    files = features_and_people({**dict(wildcards.items()), "bundle": "{bundle}"})
    bundles = [STUDY.bundle(name) for name in STUDY.human.combined[wildcards.combined].of]
    return {**files, "layers": [files["layers"].format(bundle=bundle) for bundle in bundles]}


def reduced_layers(wildcards):
    """The layers of a bundle of which human.reduction takes all tokens; of others the default layer."""
    named = {STUDY.layer(name) for name in STUDY.human.reduction.of if STUDY.bundle(name) == wildcards.bundle}
    model = STUDY.model_of(wildcards.bundle)
    return [layer for layer in model.layers if layer in named] or [model.default_layer]


def unpooled_inputs(wildcards):
    """What the model of a bundle reads, as its extraction does."""
    representation = STUDY.representation(wildcards.bundle)
    if representation.text or representation.model not in image_models():
        raise ValueError(f"'{wildcards.bundle}': models that run here on images have tokens, texts and files do not")
    return extraction_inputs(representation.model)(wildcards)


def unpooled_and_people(wildcards):
    """All tokens of some layers of a bundle, and what people chose of the same objects."""
    return {"unpooled": UNPOOLED.format(**dict(wildcards.items())), "people": features_and_people(wildcards)["people"]}


def choice_settings(**others):
    """How choices of people are predicted from features, and the other settings of an analysis."""
    return {"distance": STUDY.human.distance, "ties": STUDY.human.ties, "seed": STUDY.seed, **others}


def combination(wildcards):
    """The layers of a combination and the transform that it goes through, as parameters."""
    found = STUDY.human.combined[wildcards.combined]
    return {**asdict(found), "layers": [STUDY.layer(name) for name in found.of]}


def transform_digest(wildcards):
    """A digest of the file of a combination's transform, to notice a change."""
    path = STUDY.human.combined[wildcards.combined].transform
    return None if path is None else files_digest([Path(path)])


def human_bundles(typed=None):
    """Canonical bundles of the models that are compared with people, or of other names -> the names as typed."""
    return {STUDY.bundle(name): name for name in (STUDY.human.models if typed is None else typed)}


def of_human_models(wildcards, analysis, suffix):
    """The results of one analysis of every model that is compared with people, and of baselines, without repetition."""
    folder = f"results/{analysis}/{wildcards.dataset}/{wildcards.condition}"
    return [f"{folder}/{bundle}.{suffix}" for bundle in compared_bundles()]


def compared_bundles():
    """The bundles of everything that is compared with people, baselines last, without repetition."""
    return list(dict.fromkeys([*human_bundles(), *human_bundles(STUDY.human.baselines)]))


def of_human_figures(script):
    """Parameters of a figure of models and people: bundles and the names typed for them, and what the caption says."""
    return {
        "models": human_bundles(),
        "baselines": human_bundles(STUDY.human.baselines),
        "miniature": any(STUDY.is_miniature(name) for name in (*STUDY.human.models, *STUDY.human.baselines)),
        "code": code_of(script),
    }


def noise_grid(model):
    """Conditioning and options -> noise level -> bundle, ascending, of what human.models compares of one model; without
    what has a single level.
    """
    found = {}
    for bundle in human_bundles():
        said = STUDY.representation(bundle)
        if said.model == model and said.noise is not None:
            words = " ".join([said.conditioning or model, *said.options])
            found.setdefault(words, {})[said.noise] = bundle
    return {
        words: dict(sorted(levels.items(), key=lambda item: (item[0][0], float(item[0][1:]))))
        for words, levels in found.items()
        if len(levels) > 1
    }


def over_noise(wildcards):
    """Odd-one-out accuracies of a model over noise levels, and how well dimensions are predicted where that was asked
    for.
    """
    bundles = [bundle for levels in noise_grid(wildcards.model).values() for bundle in levels.values()]
    if not bundles:
        raise ValueError(f"human.models names no two noise levels of '{wildcards.model}' that differ in nothing else")
    bundles = dict.fromkeys([*bundles, *human_bundles(STUDY.human.baselines)])
    place = f"{wildcards.dataset}/{wildcards.condition}"

    def files(analysis, suffix):
        return [f"results/{analysis}/{place}/{bundle}.{suffix}" for bundle in bundles]

    return {
        "tables": files("odd_one_out", "tsv"),
        "recipes": files("odd_one_out", "json"),
        **(
            {"dimensions": files("regression", "tsv"), "dimension_recipes": files("regression", "json")}
            if "regression" in STUDY.human.analyses
            else {}
        ),
    }


def people_and_models():
    """The table and the figures of models and people, where the study names data sets for them."""
    if not STUDY.human.datasets:
        return []
    figures = [
        f"results/figures/{dataset}/{condition}/people/{analysis}.png"
        for dataset in STUDY.human.datasets
        for condition in STUDY.study_conditions
        for analysis in STUDY.human.analyses
    ]
    grids = [
        f"results/figures/{dataset}/{condition}/noise_levels/{model}.png"
        for dataset in STUDY.human.datasets
        for condition in STUDY.study_conditions
        for model in dict.fromkeys(map(names.model_word, human_bundles()))
        if noise_grid(model)
    ]
    reduced = [
        f"results/reduction/{dataset}/{condition}/{bundle}.tsv"
        for dataset in STUDY.human.datasets
        for condition in STUDY.study_conditions
        for bundle in dict.fromkeys(map(STUDY.bundle, STUDY.human.reduction.of))
    ]
    correlated = [
        f"results/human_rsa/{'/'.join(place)}.tsv" for place in people_places() if STUDY.things[place[0]].similarities
    ]
    return ["results/tables/people.tsv", *figures, *grids, *reduced, *correlated]


def people_places():
    """(dataset, condition, bundle) of everything that is compared with people, baselines last, without repetition."""
    return [
        (dataset, condition, bundle)
        for dataset in STUDY.human.datasets
        for condition in STUDY.study_conditions
        for bundle in compared_bundles()
    ]


def people_files(analysis, suffix):
    """The results of one analysis of everything that is compared with people."""
    return [f"results/{analysis}/{'/'.join(place)}.{suffix}" for place in people_places()]


def about_bundles():
    """What the table of models and people says of bundles beside their results."""
    models = human_bundles()
    return {
        bundle: {
            "name": name,
            "default_layer": STUDY.model_of(bundle).default_layer,
            "is_baseline": bundle not in models,
            "miniature": STUDY.is_miniature(bundle),
        }
        for bundle, name in {**human_bundles(STUDY.human.baselines), **models}.items()
    }


def with_texts_alone():
    """A pattern of the data sets that have names and texts, and no images."""
    return any_of_or_none(
        name for name, dataset in STUDY.datasets.items() if dataset.kind == "table" and not dataset.has_images
    )


def downloaded_table(wildcards):
    """The tables of a data set of the hub; nothing for others."""
    if not STUDY.datasets[wildcards.dataset].hub:
        return {}
    folder = f"resources/datasets/{wildcards.dataset}"
    return {"download": f"{folder}/table", "record": f"{folder}/table.json"}


def table_files(wildcards):
    """A digest of the files of a data set that a user has, to notice a change."""
    path = STUDY.datasets[wildcards.dataset].path
    if path is None:
        return None
    return files_digest([Path(path)]) if Path(path).is_file() else folder_digest(Path(path))


def published_images(wildcards):
    """The folder of a data set whose transformed images exist already; None for others."""
    dataset = STUDY.datasets[wildcards.dataset]
    return dataset.path if dataset.kind == "transformed" else None


def published_conditions():
    """The conditions that have a folder in the layout of VFM-VAE, in which rotations and scales are a list."""
    return [condition for condition in STUDY.conditions if condition == CLEAN or condition.startswith("noise_")]


def clean_statistics(wildcards):
    """The statistics of clean latents, which normalise those of transformed images where they are measured."""
    if STUDY.models[wildcards.model].latent_statistics == "fixed" or wildcards.condition == CLEAN:
        return {}
    folder = LATENTS.format(dataset=wildcards.dataset, condition=CLEAN, model=wildcards.model)
    return {"clean_statistics": f"{folder}/latents_stats.pt"}


def code_of(*scripts):
    """Digest of scripts and of every module of the library that they import."""
    return code_digest([SCRIPTS / script for script in scripts])


def models_from(source):
    """Names of the models whose weights come from `source`; a pattern that matches nothing if there are none."""
    return any_of_or_none(name for name, model in STUDY.models.items() if model.weights.source == source)


def any_of_or_none(words):
    """A pattern of these words; one that matches nothing if there are none."""
    found = list(words)
    return any_of(found) if found else "(?!)"


def autoencoders(imported=False):
    """A pattern of the models whose latents others can read; those that encode here, or those with latents_from."""
    found = {name: model for name, model in STUDY.models.items() if model.is_autoencoder}
    return any_of_or_none(name for name, model in found.items() if (model.latents_from is not None) == imported)


def latent_files(wildcards):
    """A digest of the files that latents are imported from, to notice a change."""
    found = STUDY.models[wildcards.model].latents_from.at(wildcards.dataset, wildcards.condition)
    return files_digest(path for path in found if path is not None)


def family_code(name):
    """The module that loads a model. It is imported by name, so a digest must be told of it."""
    return MODELS_CODE / f"{STUDY.models[name].family}.py"


def growing(base):
    """Memory in MB that grows with every attempt."""
    return lambda wildcards, attempt: base * attempt


def checkpoint_of(wildcards):
    """What the checkpoint of a model depends on: the part of its entry that says where weights come from."""
    model = STUDY.models[wildcards.model]
    entry = model.recipe()
    return {key: entry[key] for key in ("name", "family", "weights", "miniature") if key in entry}


def configuration_of(wildcards):
    """What the configuration of an untrained twin is taken from, where it lies here: the miniature of its model."""
    if STUDY.models[wildcards.model].weights.source != "miniature" or twin_of(wildcards) is not None:
        return []
    return [f"{WEIGHTS}/checkpoint", f"{WEIGHTS}/weights.json"]


def twin_of(wildcards):
    """What an untrained twin is written from where checkpoints hold no configuration; None where they do."""
    model = STUDY.models[wildcards.model]
    if FAMILIES[model.family].untrained != "architecture":
        return None
    return {"family": model.family, "architecture": model.built, "seed": model.seed}


def default_layers(*typed):
    """Bundle -> its default layer, for the bundles of these names."""
    return {STUDY.bundle(name): STUDY.model_of(name).default_layer for name in typed}


def recipe_of(wildcards):
    """What the features of a bundle depend on: its model, noise level, conditioning, seed and code."""
    representation = STUDY.representation(wildcards.bundle)
    model = STUDY.model_of(wildcards.bundle)
    extraction = "extract_texts.py" if is_language(model) else "extract.py"
    script = "text_features.py" if representation.text else "import_features.py" if model.features else extraction
    return {
        "format": 1,
        "bundle": wildcards.bundle,
        "model": model.recipe(),
        "noise": representation.noise,
        "conditioning": representation.conditioning,
        "autoencoder": STUDY.models[model.latents].encoder() if model.latents else None,
        "code": code_of(script, family_code(model.name)),
        # not a parameter of the import, which loses them when it gains a layer
        **({"files": feature_files(model)} if model.features and model.features.url is None else {}),
    }


def feature_files(model):
    """A digest of the files of a precomputed model, on every data set and condition, to notice a change."""
    return files_digest(
        path
        for dataset in STUDY.datasets
        for condition in STUDY.conditions
        for source in precomputed.sources(model, dataset, condition).values()
        for path in precomputed.may_read(source)
    )


def downloaded_features(name):
    """The file of features of a precomputed model that is downloaded, as a named input; nothing for others."""
    file = STUDY.models[name].features.file
    return {} if file is None else {"features": f"{DOWNLOADED}/{file}".format(model=name)}


def published_file(wildcards):
    """The one file that a precomputed model's features, and their quality, are read from."""
    model = STUDY.model_of(wildcards.means)
    file = downloaded_features(model.name).get("features")
    sources = precomputed.sources(model, wildcards.dataset, wildcards.condition, Path(file) if file else None)
    return str(next(iter(sources.values())).path)


def extracted_models():
    """The models that run here."""
    return {name: model for name, model in STUDY.models.items() if model.features is None}


def image_models():
    """The models that run here on images, or on latents of them."""
    return {name: model for name, model in extracted_models().items() if not is_language(model)}


def language_models():
    """The models that run here on texts of images."""
    return {name: model for name, model in extracted_models().items() if is_language(model)}


def precomputed_models():
    """The models whose features were made elsewhere."""
    return {name: model for name, model in STUDY.models.items() if model.features is not None}


def is_language(model):
    """Whether a model reads texts of images in place of the images."""
    return FAMILIES[model.family].reads == "texts"


def said_inputs(wildcards):
    """Inputs of the extraction of a language model."""
    if not STUDY.datasets[wildcards.dataset].has_manifest:
        raise ValueError(f"the data set '{wildcards.dataset}' has no texts, so '{wildcards.means}' reads nothing on it")
    conditioning = STUDY.representation(wildcards.means).conditioning
    weights = weights_of(wildcards.means)
    return {
        "recipe": f"results/recipes/{wildcards.means}.json",
        "weights": f"{weights}/checkpoint",
        "record": f"{weights}/weights.json",
        "texts": f"results/texts/{wildcards.dataset}/{conditioning}.json",
    }


def extraction_inputs(name):
    """Inputs of the extraction of one model: images, or latents, prompts and class tokens."""
    model = STUDY.models[name]

    def inputs(wildcards):
        where = {"dataset": wildcards.dataset, "condition": wildcards.condition}
        weights = weights_of(wildcards.bundle)
        if not STUDY.datasets[wildcards.dataset].has_images:
            raise ValueError(f"the data set '{wildcards.dataset}' has no images, so {name} cannot be run on it")
        files = {
            "recipe": f"results/recipes/{wildcards.bundle}.json",
            "weights": f"{weights}/checkpoint",
            "record": f"{weights}/weights.json",
            "dataset": f"{IMAGES}/dataset.json".format(**where),
            "manifest": f"{IMAGES}/manifest.tsv".format(**where),
        }
        if model.latents is None:
            return {**files, "images": f"{IMAGES}/png".format(**where)}
        folder = LATENTS.format(**where, model=model.latents)
        files |= {
            "latents": shards(folder),
            "statistics": f"{folder}/latents_stats.pt",
            "autoencoder_record": latents_record(model.latents, folder),
        }
        if FAMILIES[model.family].told == "prompts":
            files["prompts"] = prompts_of(wildcards)
        if model.class_tokens is not None:
            bundle, layer = STUDY.bundle(model.class_tokens), STUDY.models[model.class_tokens].default_layer
            files["class_tokens"] = f"{FEATURES}/{layer}.pt".format(**where, bundle=bundle)
        return files

    return inputs


def extraction_rule(name):
    """The name of the rule that runs one model, on all images or on a part of them."""
    return f"extract_{name.replace('.', '_')}{'_part' if STUDY.extraction_shards > 1 else ''}"


def feature_outputs(model):
    """The features of every layer of a bundle and their manifest."""
    return {"features": [f"{FEATURES}/{layer}.pt" for layer in model.layers], "manifest": f"{FEATURES}/layers.json"}


def language_outputs(model):
    """The features of every layer of both bundles, their manifests, and how well texts are predicted."""
    last = f"{MEANS}-{names.LAST}"
    return {
        "features": [f"{MEANS}/{layer}.pt" for layer in model.layers],
        "manifest": f"{MEANS}/layers.json",
        "last": [f"{last}/{layer}.pt" for layer in model.layers],
        "last_manifest": f"{last}/layers.json",
        "quality": f"{LANGUAGE}.json",
        "table": f"{LANGUAGE}.tsv",
    }


def bundles_of_means(model):
    """A pattern of the bundles of a language model that are means over tokens; those of last tokens come with them."""
    options = tuple(option for option in model.vocabulary.options if option != names.LAST)
    return names.bundle_pattern(model.name, replace(model.vocabulary, options=options))


def extraction_outputs(model):
    """What the extraction of one model writes: the features of all images, or a file with those of a part."""
    if STUDY.extraction_shards == 1:
        return language_outputs(model) if is_language(model) else feature_outputs(model)
    return {"part": temp(f"{MEANS if is_language(model) else FEATURES}/{{part}}-of-{{parts}}.safetensors")}


def feature_parts(folder=FEATURES):
    """The parts of a bundle's features, in order. Their names say how many there are, so that none is mixed."""
    parts = STUDY.extraction_shards
    return [f"{folder}/{part}-of-{parts}.safetensors" for part in range(parts)]


def text_inputs(wildcards):
    """Inputs of the features of a text or a given embedding alone; of the latter without a checkpoint."""
    where = {"dataset": wildcards.dataset, "condition": wildcards.condition}
    if not STUDY.datasets[wildcards.dataset].has_images:
        raise ValueError(f"the data set '{wildcards.dataset}' has no images, so nothing is said of them")
    given = STUDY.representation(wildcards.bundle).conditioning in STUDY.model_of(wildcards.bundle).embeddings
    return {
        "recipe": f"results/recipes/{wildcards.bundle}.json",
        "dataset": f"{IMAGES}/dataset.json".format(**where),
        "manifest": f"{IMAGES}/manifest.tsv".format(**where),
        "prompts": prompts_of(wildcards),
        **({} if given else {"record": f"{weights_of(wildcards.bundle)}/weights.json"}),
    }


def weights_of(bundle):
    """The folder of the checkpoint of a bundle. Raises ValueError where a model has no untrained twin."""
    model = STUDY.model_of(bundle)
    if model.untrained and not FAMILIES[model.family].untrained:
        raise ValueError(f"'{bundle}': models of family '{model.family}' have no untrained twins")
    return (UNTRAINED if model.untrained else WEIGHTS).format(model=model.name)


def prompts_of(wildcards):
    """The file of prompts that a bundle is told, or of the text that it is."""
    representation = STUDY.representation(wildcards.bundle)
    model = STUDY.models[representation.model]
    told = f"{model.name}-{representation.conditioning}"
    if "untrained" in representation.options and representation.conditioning not in model.embeddings:
        told += "-untrained"
    return f"results/prompts/{wildcards.dataset}/{told}.safetensors"


def predicts_texts(name):
    """Whether a file says how well the model of a name predicts texts: that of a language model, read here or there."""
    model = STUDY.model_of(name)
    return model.features.quality if model.features else is_language(model)


def pairs_with_language():
    """The pairs of the study of a language model and one of another kind, and which side it is."""
    sides = {pair: [predicts_texts(name) for name in pair] for pair in STUDY.pairs}
    return {pair: "ab"[which.index(True)] for pair, which in sides.items() if sum(which) == 1}


def quality_places():
    """(metric, dataset, condition, pair, side of the language model) of every row of the table of quality."""
    pairs = pairs_with_language()
    return [
        (metric, dataset, condition, pair, side)
        for dataset in STUDY.study_datasets
        for condition in STUDY.study_conditions
        for metric in METRICS
        for pair, side in pairs.items()
    ]


def quality_inputs():
    """The matrices of these pairs under every metric, data set and condition, and of each the file of its quality."""
    places = quality_places()
    files = with_recipes([path for metric, *where, pair, _ in places for path in matrices([metric], *where, *pair)])
    return {**files, "qualities": [quality_of(*where, pair["ab".index(side)]) for _, *where, pair, side in places]}


def quality_of(dataset, condition, name):
    """What says how well the language model of a name predicts texts: that of means over tokens, for last ones, too."""
    representation = STUDY.representation(name)
    options = tuple(option for option in representation.options if option != names.LAST)
    means = replace(representation, options=options).bundle(STUDY.catalogue[representation.model])
    return f"{LANGUAGE}.json".format(dataset=dataset, condition=condition, means=means)


def languages():
    """Of every matrix of `quality_inputs`, its language model: side, what its name says beside the model, series."""
    found = []
    for *_, pair, side in quality_places():
        bundle, model = STUDY.bundle(pair["ab".index(side)]), STUDY.model_of(pair["ab".index(side)])
        found.append({"side": side, "variant": bundle.removeprefix(model.name), "series": model.series or model.name})
    return found


def qualities():
    """The tables and figures of alignment against quality, where the study has pairs with language models."""
    if not pairs_with_language():
        return []
    figures = [
        f"results/figures/{dataset}/{condition}/quality/{metric}.png"
        for dataset in STUDY.study_datasets
        for condition in STUDY.study_conditions
        for metric in METRICS
    ]
    return ["results/tables/quality.tsv", *figures]


def texts_told(wildcards):
    """Files of what is said of the images of a data set; of the conditioning of a target alone, for a change to be seen
    where it matters.
    """
    texts = STUDY.texts[wildcards.dataset]
    files = {word: path for word, path in texts.files.items() if word == wildcards.conditioning}
    return {"files": files, "words": texts.words if wildcards.conditioning == "label" else None}


def files_told(wildcards):
    """A digest of these files, to notice a change."""
    told = texts_told(wildcards)
    return files_digest(Path(path) for path in (*told["files"].values(), told["words"]) if path)


def given_embeddings(wildcards):
    """The file of given embeddings that a word of a model names."""
    embeddings = STUDY.models[wildcards.model].embeddings
    if wildcards.word not in embeddings:
        raise names.unknown("embedding", wildcards.word, embeddings)
    return embeddings[wildcards.word].replace("{dataset}", wildcards.dataset)


def prompted_models():
    """The models that are told texts."""
    return {name: model for name, model in STUDY.models.items() if FAMILIES[model.family].told == "prompts"}


def latents_record(name, folder):
    """What says where the latents of an autoencoder come from: its checkpoint's record, or that of their import."""
    imported = STUDY.models[name].latents_from is not None
    return f"{folder}/latents.json" if imported else f"{WEIGHTS}/weights.json".format(model=name)


def exported_layers(wildcards):
    """Feature files of every layer of a typed name, in order of depth."""
    where = {"dataset": wildcards.dataset, "condition": wildcards.condition, "bundle": STUDY.bundle(wildcards.a)}
    return [f"{FEATURES}/{layer}.pt".format(**where) for layer in STUDY.model_of(wildcards.a).layers]


def exported_layer(wildcards):
    """The feature file of the layer that a typed name means."""
    layers = list(STUDY.model_of(wildcards.a).layers)
    return [exported_layers(wildcards)[layers.index(STUDY.layer(wildcards.a))]]


def shards(folder):
    """The files that hold the latents of one folder."""
    return [f"{folder}/latents_rank00_shard{i:03d}.safetensors" for i in range(STUDY.latent_shards)]


def neighbor_parts():
    """The parts of a bundle's neighbour lists, in order. Their names say how many there are, so that none is mixed."""
    parts = STUDY.alignment.shards
    return [f"results/neighbors/{{dataset}}/{{condition}}/{{bundle}}/{part}-of-{parts}.npz" for part in range(parts)]


def both_sides(wildcards, metrics=None):
    """What metrics read of both sides of a pair: neighbours, and features and factors where one needs them.

    Under the data set and condition of the target or the defaults; of the metric of the target or those given.
    """
    return parts_of_both(wildcards, reads(metrics or [wildcards.metric]))


def parts_of_both(wildcards, parts):
    """These parts (neighbors, features, factors) of both sides of a pair, as named inputs."""
    where = {
        "dataset": wildcards.get("dataset", STUDY.default_dataset),
        "condition": wildcards.get("condition", STUDY.default_condition),
    }
    places = {"neighbors": f"{NEIGHBORS}.npz", "features": f"{FEATURES}/layers.json", "factors": f"{FACTORS}.npz"}
    return {
        f"{part}_{side}": places[part].format(**where, bundle=STUDY.bundle(wildcards[side]))
        for part in parts
        for side in "ab"
    }


def all_metrics(wildcards):
    """What all metrics of the study read of both sides of a pair."""
    return both_sides(wildcards, METRICS)


def lists_of_both(wildcards):
    """The neighbour lists of both sides of a pair."""
    return parts_of_both(wildcards, ["neighbors"])


def lists_and_features_of_both(wildcards):
    """The neighbour lists and the features of both sides of a pair."""
    return parts_of_both(wildcards, ["neighbors", "features"])


def manifest_of_images(wildcards):
    """The manifest of the images of a target; nothing for a data set without images."""
    if not STUDY.datasets[wildcards.dataset].has_images:
        return {}
    return {"manifest": f"{IMAGES}/manifest.tsv".format(dataset=wildcards.dataset, condition=wildcards.condition)}


def pictures(wildcards):
    """The PNG files of the images of a target."""
    if not STUDY.datasets[wildcards.dataset].has_images:
        raise ValueError(f"the data set '{wildcards.dataset}' has no images, so there is no gallery of them")
    return {"images": f"{IMAGES}/png".format(dataset=wildcards.dataset, condition=wildcards.condition)}


def calibrations(metrics, dataset, condition, a, b):
    """The calibrations of the layer x layer matrices of one pair."""
    pair = names.print_pair(a, b)
    return [f"results/{metric}/{dataset}/{condition}/calibration/{pair}.npz" for metric in metrics]


def matrices(metrics, dataset, condition, a, b):
    """The layer x layer matrices of one pair."""
    pair = names.print_pair(a, b)
    return [f"results/{metric}/{dataset}/{condition}/layers/{pair}.npy" for metric in metrics]


def matrices_of(wildcards):
    """The matrices of all metrics of one pair, and their recipes."""
    return with_recipes(matrices(METRICS, wildcards.dataset, wildcards.condition, wildcards.a, wildcards.b))


def matrices_of_all_pairs(wildcards):
    """The matrices of one metric of every pair of the study, and their recipes."""
    places = ((wildcards.dataset, wildcards.condition, a, b) for a, b in STUDY.pairs)
    return with_recipes([path for place in places for path in matrices([wildcards.metric], *place)])


def matrices_of_two_sides(wildcards):
    """The matrices of one metric of every pair of one side of the study with the other, and their recipes."""
    models, against = (dict.fromkeys(side) for side in zip(*STUDY.pairs, strict=True)) if STUDY.pairs else ((), ())
    wanted = {(a, b) for a in models for b in against}
    if not STUDY.pairs or set(STUDY.pairs) != wanted or set(models) & set(against):
        raise ValueError(
            "a file of scores X x Y has every model of one side with every one of the other: set study.against, and "
            "study.pairs to all"
        )
    found = [
        path
        for a in models
        for b in against
        for path in matrices([wildcards.metric], wildcards.dataset, wildcards.condition, a, b)
    ]
    return {"matrices": found, "recipes": recipes_of(found)}


def with_recipes(arrays):
    """Matrices, the recipes that lie beside them, and their calibrations, as named inputs."""
    return {
        "matrices": arrays,
        "recipes": recipes_of(arrays),
        "calibrations": [str(Path(path).parents[1] / "calibration" / f"{Path(path).stem}.npz") for path in arrays],
    }


def recipes_of(arrays):
    """The recipes that lie beside arrays."""
    return [path.removesuffix(".npy") + ".json" for path in arrays]


def study_places():
    """(dataset, condition, a, b) of every pair of the study."""
    return [
        (dataset, condition, a, b)
        for dataset in STUDY.study_datasets
        for condition in STUDY.study_conditions
        for a, b in STUDY.pairs
    ]


def all_matrices():
    """Every layer x layer matrix of the study."""
    return [path for place in study_places() for path in matrices(METRICS, *place)]


def everything():
    """What the study is: tables, figures and the single scores it names."""
    figures = [
        f"results/figures/{dataset}/{condition}/{figure}/{names.print_pair(a, b)}.png"
        for dataset, condition, a, b in study_places()
        for figure in ("layer_maps", "depth_curves", "null_histograms")
    ]
    maps = [
        f"results/figures/{dataset}/{condition}/model_maps/{metric}.png"
        for dataset in STUDY.study_datasets
        for condition in STUDY.study_conditions
        for metric in METRICS
    ]
    tables = [f"results/tables/{table}.tsv" for table in ("alignment", "pairs")]
    scores = [f"results/{metric}/{pair}.npy" for metric in METRICS for pair in STUDY.scores]
    return [
        *scores,
        *([*tables, *figures, *maps] if STUDY.pairs else []),
        *qualities(),
        *looks_at_scores(),
        *semantic_equivariance(),
        *people_and_models(),
    ]


def scores_of_all_models():
    """One score of every model of the catalogue that runs here: its default layer beside the study's first model's.

    Other sizes and checkpoints of a model, with a suffix as in dinov2.g, run the same code and are left out.
    """
    first = STUDY.model_of(STUDY.pairs[0][0]).name if STUDY.pairs else next(iter(STUDY.models))
    others = [name for name in extracted_models() if name != first and not re.search(r"\.[a-z]", name)]
    return [f"results/{METRICS[0]}/{names.print_pair(first, name)}.npy" for name in others]


def looks_at_scores():
    """What is looked at closely: the pairs that the study names, on the default data set and condition."""
    place = f"{STUDY.default_dataset}/{STUDY.default_condition}"
    has_images = STUDY.datasets[STUDY.default_dataset].has_images
    return [
        path
        for pair in STUDY.scores
        for path in (
            f"results/per_image/{place}/{pair}.parquet",
            f"results/figures/{place}/curves/{pair}.png",
            *([f"results/figures/{place}/gallery/{pair}.png"] if has_images else []),
        )
    ]


def se_conditions(side="a"):
    """Conditions that one side of an SE-CKNNA has, clean first, in the order of the mean's."""
    conditions = STUDY.se_cknna.conditions
    if side == "b" and STUDY.se_cknna.reference == CLEAN:
        return [CLEAN] * (1 + len(conditions))
    return [CLEAN, *conditions]


def lists_under(name, conditions, wildcards):
    """The neighbour lists of a typed name under each of these conditions, on the data set of a target or the default."""
    dataset = wildcards.get("dataset", STUDY.default_dataset)
    bundle = STUDY.bundle(name)
    return [f"{NEIGHBORS}.npz".format(dataset=dataset, condition=each, bundle=bundle) for each in conditions]


def se_recipes(dataset):
    """What is known of the SE-CKNNA of every pair of the study on one data set."""
    return [f"results/se_cknna/{dataset}/{pair}.json" for pair in STUDY.se_cknna.pairs]


def semantic_equivariance():
    """The table and the figures of SE-CKNNA, where the study names pairs for it."""
    if not STUDY.se_cknna.pairs:
        return []
    figures = [f"results/figures/{dataset}/se_cknna.png" for dataset in STUDY.study_datasets]
    return ["results/tables/se_cknna.tsv", *figures]


def made_by(rules):
    """A pattern of every file that one of the rules makes, for the refusal of all others."""
    patterns = {regex_from_filepattern(str(output)) for rule in rules for output in rule.output}
    # the names of wildcards may stand only once in a pattern
    bare = sorted(re.sub(r"\(\?P<\w+>", "(?:", pattern).rstrip("$") for pattern in patterns)
    return names.any_path(bare)


def refuse(wildcards):
    """Say which word of a target is unknown."""
    raise ValueError(targets.explain(wildcards.target, STUDY, KNOWN_METRICS))
