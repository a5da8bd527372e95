//! The collapsible linear block of SESR (Bhardwaj et al. 2022).

use super::{BlockKind, Example, Parameter, site::Conv};
use crate::{Graph, Tensor, Weights, WeightsError, fold::product};

/// Linear unless said otherwise: SESR's first and last blocks have nothing behind them.
const ACTIVATIONS: &[&str] = &["none", "relu", "relu6", "swish", "hard_swish", "gelu", "prelu", "sigmoid"];

/// Flag of a block as it is trained.
pub(super) const EXPANDED: &str = "expanded";

/// `collapsible`.
pub static COLLAPSIBLE: BlockKind = BlockKind {
    name: "collapsible",
    about: "wide linear block that is trained expanded and runs as one convolution (SESR)",
    parameters: &[
        Parameter::number("k", 3, "side of the window"),
        Parameter::number("p", 256, "width of the middle while it is expanded"),
        Parameter::word("act", ACTIVATIONS, "activation behind it"),
        Parameter::flag(EXPANDED, "as it is trained: kxk to the middle, 1x1 to the output"),
        Parameter::flag("res", "the input is added in front of the activation; part of the one convolution"),
    ],
    build: |site, x| {
        if site.flag("res") {
            site.keeps(x)?;
        }
        let (kernel, act) = (site.number("k"), site.activation());
        if !site.flag(EXPANDED) {
            // The sum with the input is a one in the middle of the window.
            return site.conv("conv", x, Conv::square(site.channels, kernel, site.stride).plain().then(act));
        }
        let wide = site.conv("expand", x, Conv::square(site.number("p"), kernel, site.stride).plain())?;
        let mut y = site.conv("project", wide, Conv::pointwise(site.channels).plain())?;
        if site.flag("res") {
            y = site.sum("sum", x, y)?;
        }
        site.activate("act", y, act)
    },
    examples: &[
        Example::new("collapsible k5 p16", [1, 6, 5], 4, 1),
        Example::new("collapsible k5 p16 prelu", [1, 6, 5], 4, 1),
        Example::new("collapsible k3 p8 expanded res prelu", [4, 5, 5], 4, 1),
    ],
};

/// The tensors of a network whose collapsible blocks were trained expanded, for the network as it is deployed: of
/// [`NetworkOptions::expanded`](crate::NetworkOptions) and without it. All other tensors are as they were trained.
///
/// # Errors
/// [`WeightsError`] if a tensor is missing or of other extents.
pub fn collapse(trained: &Graph, weights: &Weights, deployed: &Graph) -> Result<Weights, WeightsError> {
    let of = |name: &str| {
        let spec = trained.parameters().into_iter().find(|spec| spec.name == name)?;
        Some(weights.get(name, &spec.dims).map(|values| (values.to_vec(), spec.dims)))
    };
    let mut tensors = std::collections::BTreeMap::new();
    for spec in deployed.parameters().into_iter().chain(deployed.statistics()) {
        let prefix = spec.name.strip_suffix(".conv.weight").unwrap_or_default();
        let pair = (of(&format!("{prefix}.expand.weight")), of(&format!("{prefix}.project.weight")));
        let values = if let (Some(first), Some(second)) = pair {
            let ((first, extents), (second, _)) = (first?, second?);
            let mut values = product(&first, &second, extents[0]);
            if trained.nodes().iter().any(|node| node.name == format!("{prefix}.sum")) {
                let &[_, inner, kernel, _] = spec.dims.as_slice() else { continue };
                let taps = kernel * kernel;
                for channel in 0..inner {
                    values[(channel * inner + channel) * taps + taps / 2] += 1.0;
                }
            }
            values
        } else {
            // The activation is the convolution's where there is one convolution only.
            let own = spec.name.replace(".conv.act.", ".act.");
            let name = if weights.0.contains_key(&spec.name) { &spec.name } else { &own };
            weights.get(name, &spec.dims)?.to_vec()
        };
        tensors.insert(spec.name, Tensor { dims: spec.dims, values });
    }
    Ok(Weights(tensors))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{NetworkOptions, Space, Stream, evaluate, seeded_input};

    #[test]
    fn what_was_trained_expanded_is_deployed_as_the_same_function() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/spaces/sesr.toml")).unwrap();
        let space = Space::from_toml(&text.replace("[1, 180, 320]", "[1, 9, 11]")).unwrap();
        for index in 0..4 {
            let genotype = space.sample(&mut Stream::new(7, "collapse", index));
            let expanded = NetworkOptions { expanded: true, ..NetworkOptions::default() };
            let trained = space.network(&genotype, expanded).unwrap();
            let deployed = space.network(&genotype, NetworkOptions::default()).unwrap();
            assert!(trained.parameter_count() > deployed.parameter_count());
            let weights = Weights::seeded(&trained, index);
            let collapsed = collapse(&trained, &weights, &deployed).unwrap();
            let input = seeded_input(deployed.input_shape().unwrap(), index);
            let wide = evaluate(&trained, &weights, &input).unwrap();
            let narrow = evaluate(&deployed, &collapsed, &input).unwrap();
            let largest = wide.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            for (wide, narrow) in wide.iter().zip(&narrow) {
                assert!((wide - narrow).abs() < 1e-5 * largest.max(1.0), "{wide} {narrow}");
            }
        }
        let none = Weights(std::collections::BTreeMap::new());
        let genotype = space.sample(&mut Stream::new(7, "collapse", 0));
        let graph = space.network(&genotype, NetworkOptions::default()).unwrap();
        assert!(collapse(&graph, &none, &graph).is_err());
    }
}
