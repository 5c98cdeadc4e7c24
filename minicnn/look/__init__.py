"""Looking inside a trained network: what its filters are, what excites its units, what its answer rests on.

Each question is a function of a model and an image, x (1, H, W, C), normalised as the network was trained and on the
model's device; what it returns is a NumPy array or plain numbers. Networks are looked at in evaluation mode, layers go
by the names of their modules. Pictures are made of the results elsewhere (`render`, `drawing`), by
`python -m minicnn.look`.

    trace                the ops that ran, under the names of their layers, on a tape (everything below stands on it)
    first_filters        the weights of the first convolution
    feature_maps         what a layer makes of the image
    projections          which pattern in the image excited a unit: the deconvolutional network
    occlusion_map        where the answer depends on the image: a grey square slides over it
    grad_cam             which places spoke for a class, on the last map
    branch_shares        how much each branch of an Inception module counts, by weights and by gradient
    layer_responses      how strong each layer's response is
    network_graph        which op takes its input from which
"""

from minicnn.look.branches import Share, branch_shares
from minicnn.look.deconvnet import projections
from minicnn.look.filters import first_filters
from minicnn.look.gradcam import grad_cam
from minicnn.look.graph import Box, network_graph
from minicnn.look.maps import feature_maps, stages, strongest
from minicnn.look.occlusion import Occlusion, occlusion_map, probabilities
from minicnn.look.responses import layer_responses
from minicnn.look.tracing import Step, Trace, trace

__all__ = [
    "Box",
    "Occlusion",
    "Share",
    "Step",
    "Trace",
    "branch_shares",
    "feature_maps",
    "first_filters",
    "grad_cam",
    "layer_responses",
    "network_graph",
    "occlusion_map",
    "probabilities",
    "projections",
    "stages",
    "strongest",
    "trace",
]
