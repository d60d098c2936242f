"""What a connectome is expected to be like, beyond what its schema says: each expectation with its reason.

An expectation measures one value per place (tile, section, block, object, connection, or the whole dataset) and holds
when all of them lie within its limits, which are settings (`settings.QaParams`). Two kinds have no limits to choose:
that sections were placed by matches, and sums that must agree exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from connectome_db.qa import domain_graph as graph
from connectome_db.qa import domain_images as images
from connectome_db.qa.frames import Frame, Tables
from connectome_db.qa.measures import VALUE
from connectome_db.qa.rules import Rule, span
from connectome_db.qa.settings import WITHOUT_LIMIT, QaParams, Severity


@dataclass(frozen=True)
class Domain:
    """One expectation. `needs` names the columns it reads, "table.column"; the first table is the one it is about.

    `measure` is None for an expectation that is judged on the table itself, by `rule`.
    """

    name: str
    says: str
    reason: str
    severity: Severity
    needs: tuple[str, ...]
    measure: Callable[[Tables], Frame] | None
    rule: Rule | None = None

    @property
    def tables(self) -> tuple[str, ...]:
        """Tables that must be there, the one that it is about first."""
        return tuple(dict.fromkeys(n.split(".")[0] for n in self.needs))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the table that it is about."""
        return tuple(n.split(".")[1] for n in self.needs if n.startswith(f"{self.tables[0]}."))

    def weight(self, params: QaParams) -> Severity | None:
        """Its severity under these settings; None when it is turned off."""
        chosen = params.severity.get(self.name, self.severity)
        off = chosen == "off" or (self.name not in WITHOUT_LIMIT and params.limits(self.name) is None)
        return None if off or chosen == "off" else chosen

    def judged_by(self, params: QaParams) -> Rule:
        """The rule that its frame must meet under these settings."""
        if self.rule is not None:
            return self.rule
        low, high = (0.0, 0.0) if self.name in WITHOUT_LIMIT else params.limits(self.name) or (None, None)
        return Rule("between", (VALUE,), low, high)

    def told(self, params: QaParams) -> str:
        """It in words, with its limits."""
        rule = self.judged_by(params)
        if rule.kind != "between":
            return self.says
        return self.says if self.name in WITHOUT_LIMIT else f"{self.says}: {span(rule.low, rule.high)}"


_OBJECTS = ("object.object", "object.size_vx", *(f"object.{a}{e}_vx" for e in (0, 1) for a in "zyx"))
_MASK = ("mask_area.unit", "mask_area.mask_class", "mask_area.voxels")
_LINK = ("link.synapse", "link.pre", "link.post", "link.counted", "link.reason")

DOMAIN: tuple[Domain, ...] = (
    Domain("unusable_tiles", "share of a section's tiles that could not be used",
           "Tissue of a lost tile is missing from every later layer; neurites are cut there as by the volume's border.",
           "warning", ("tile.section", "tile_issue.section", "tile_issue.problem"), images.unusable_tiles),
    Domain("tile_valid", "share of a tile's pixels that are not black border",
           "A tile that is mostly border was cut off while it was acquired or written.",
           "warning", ("tile.valid_fraction", "tile.section", "tile.tile"), images.tile_valid),
    Domain("tile_saturation", "share of a tile's pixels at the ends of the grey range",
           "Saturated pixels hold no membranes; no later normalisation brings them back.",
           "warning", ("tile.saturation", "tile.section", "tile.tile"), images.tile_saturation),
    Domain("tile_sharpness", "sharpness of a tile over the median of the dataset",
           "Out of focus, thin membranes vanish and neighbouring neurites merge.",
           "warning", ("tile.sharpness", "tile.section", "tile.tile"), images.tile_sharpness),
    Domain("tile_contrast", "membrane contrast of a tile",
           "Weak staining lowers the affinity network's certainty: splits, merges and missed synapses follow.",
           "warning", ("tile.membrane_contrast", "tile.section", "tile.tile"), images.tile_contrast),
    Domain("tile_noise", "noise of a tile over the spread of its grey values",
           "Above this, noise outweighs structure (short dwell time, low current) and networks leave what they know.",
           "warning", ("tile.noise", "tile.std", "tile.section", "tile.tile"), images.tile_noise),
    Domain("section_grey_step", "change of the mean grey value from one section to the next",
           "A jump is a change of session, detector or stain, across which networks behave differently.",
           "warning", ("tile.mean", "tile.section"), images.section_grey_step),
    Domain("section_gap", "sections lost in a row",
           "Thin neurites cannot be followed across a wide gap: what lies on its two sides is joined by chance.",
           "error", ("tile.section",), images.section_gap),
    Domain("tile_matches", "share of a section's tile matches that carry weight",
           "Where most matches are refused, tiles are held by few patches or by the stage's word alone.",
           "warning", ("tile_match.section", "tile_match.weight"), images.tile_matches),
    Domain("tile_residual_px", "median distance left at a section's tile matches, in px",
           "Seams that do not meet break the neurites that cross them.",
           "warning", ("tile_match.section", "tile_match.weight", "tile_match.residual_px"), images.tile_residual_px),
    Domain("loose_tiles", "share of a section's tiles that are linked to no others",
           "A loose tile lies where the stage said, which is off by more than a neurite's width.",
           "warning", ("tile_transform.section", "tile_transform.component"), images.loose_tiles),
    Domain("section_matches", "share of a section's matches to the one before it that were accepted",
           "Few agreeing matches mean that the sections show different tissue, or that one is damaged.",
           "warning", ("section_match.section_a", "section_match.section_b", "section_match.accepted"),
           images.section_matches),
    Domain("section_residual_px", "median distance left between a section and its neighbours, in px",
           "Shifts near the width of a neurite split it, and merge it with the one beside it.",
           "warning", ("alignment_residual.section_a", "alignment_residual.section_b", "alignment_residual.weight",
                       "alignment_residual.residual_y_px", "alignment_residual.residual_x_px"),
           images.section_residual_px),
    Domain("sections_placed", "sections are placed by matches",
           "A section put between its neighbours without a match lies anywhere; nothing can be traced through it.",
           "error", ("section_pose.placed", "section_pose.section"), None,
           Rule("member", ("placed",), members=("anchor", "matches"))),
    Domain("coverage", "coverage of a section over the median of the sections",
           "What no tile covers is empty in the volume: a hole in every neurite there.",
           "warning", ("image_plane.section", "image_plane.coverage"), images.coverage),
    Domain("masked", "share of a block that is fold, crack, blank or low signal",
           "Masked tissue has no supervoxels, so neurites end and synapses are missing there.",
           "warning", _MASK, images.masked),
    Domain("tissue_in_objects", "voxels of objects over voxels of tissue",
           "Less means that the segmentation failed where there is tissue.",
           "error", ("object.size_vx", *_MASK), graph.tissue_in_objects),
    Domain("object_sizes", "an object has as many voxels as its supervoxels",
           "Both are sums over the same voxels; a difference is lost or doubled tissue.",
           "error", (*_OBJECTS, "member.supervoxel", "member.object", "supervoxel.supervoxel", "supervoxel.size_vx"),
           graph.object_sizes),
    Domain("overlap_accepted", "share of the voxels at a block face whose overlaps were accepted",
           "Two blocks that disagree about the same voxels cut neurites at their face.",
           "warning", ("overlap.unit", "overlap.overlap_vx", "overlap.accepted"), graph.overlap_accepted),
    Domain("largest_object", "share of all objects' volume in the largest one",
           "One object that swallows the volume is a merge catastrophe: its connections are those of many neurons.",
           "error", _OBJECTS, graph.largest_object),
    Domain("weak_merges", "share of the merged contact area with a score below 0.5",
           "Such merges join what the network held for apart; many of them mean a threshold set too low.",
           "info", ("merge.area_nm2", "merge.score"), graph.weak_merges),
    Domain("borderline", "pairs of objects near the threshold, per object",
           "Where many pairs are undecided, small changes of the threshold change the graph.",
           "info", ("borderline.a", "object.object"), graph.borderline),
    Domain("synapse_density", "detected synapses per um3 of tissue",
           "Neuropil has about one per um3; far less or more is a threshold or a voxel size gone wrong.",
           "warning", ("synapse.synapse", *_MASK), graph.synapse_density),
    Domain("synapse_confidence", "median confidence of the synapses",
           "Unsure clefts are the first sign of tissue that the network was not trained for.",
           "warning", ("synapse.confidence",), graph.synapse_confidence),
    Domain("synapse_polarity", "median evidence for the direction of the synapses",
           "Without it, which neuron is presynaptic is a guess.",
           "info", ("synapse.polarity",), graph.synapse_polarity),
    Domain("counted", "share of the synapses that count in a connection",
           "The graph should rest on most of what was detected, or say why not.",
           "warning", _LINK, graph.counted),
    Domain("duplicates", "share of the synapses that repeat another",
           "Many repeats mean clefts that break into pieces, or blocks too small for them.",
           "info", _LINK, graph.duplicates),
    Domain("autapses", "share of the synapses of a neuron onto itself",
           "Autapses are rare; many are the mark of wrongly merged neurons.",
           "warning", _LINK, graph.autapses),
    Domain("connection_sums", "connections have as many synapses as are counted, per presynaptic neuron",
           "`connection` sums up `link`; a difference is an edge that was lost or invented.",
           "error", ("connection.pre", "connection.synapses", *_LINK), graph.connection_sums),
    Domain("neuron_sums", "neurons have as many synapses as are counted",
           "`neuron` sums up `link`; a difference means a wrong degree.",
           "error", ("neuron.neuron", "neuron.synapses_out", "neuron.synapses_in", *_LINK), graph.neuron_sums),
    Domain("unconnected", "share of the neurons without a counted synapse",
           "Neurites without a synapse are fragments, or their synapses were missed.",
           "info", ("neuron.synapses_out", "neuron.synapses_in"), graph.unconnected),
    Domain("connection_synapses", "synapses of one connection",
           "A connection of very many synapses is often two merged neurons.",
           "info", ("connection.pre", "connection.post", "connection.synapses"), graph.connection_synapses),
    Domain("serious_flags", "regions that were flagged as serious",
           "Results from such a region differ from the rest for technical reasons; see `connectome diagnose`.",
           "warning", ("flag.flag", "flag.severity", *(f"flag.{a}{e}_nm" for e in (0, 1) for a in "zyx")),
           graph.serious_flags),
)  # fmt: skip
"""In the order of the pipeline."""
