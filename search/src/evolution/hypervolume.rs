//! How much of the objectives' space a set of points covers.

/// Volume of what the points dominate, up to a reference point, all objectives minimised; points that are
/// not below the reference in every objective cover nothing. Exact: a sweep in two dimensions, slices
/// along the last objective in more (While et al. 2006, A Faster Algorithm for Calculating Hypervolume:
/// "hypervolume by slicing objectives", exponential in their number).
pub fn hypervolume(points: &[Vec<f64>], reference: &[f64]) -> f64 {
    let inside: Vec<&[f64]> = points
        .iter()
        .map(Vec::as_slice)
        .filter(|point| point.iter().zip(reference).all(|(value, bound)| value < bound))
        .collect();
    sliced(inside, reference)
}

fn sliced(mut points: Vec<&[f64]>, reference: &[f64]) -> f64 {
    let last = reference.len() - 1;
    if last == 0 {
        let least = points.iter().map(|point| point[0]).fold(reference[0], f64::min);
        return reference[0] - least;
    }
    points.sort_by(|left, right| left[last].total_cmp(&right[last]));
    if last == 1 {
        // By rising second objective: a point adds what is left of the ones before it.
        let (mut volume, mut least) = (0.0, reference[0]);
        for point in points {
            if point[0] < least {
                volume += (least - point[0]) * (reference[1] - point[1]);
                least = point[0];
            }
        }
        return volume;
    }
    let mut volume = 0.0;
    for index in 0..points.len() {
        let top = points.get(index + 1).map_or(reference[last], |next| next[last]);
        let depth = top - points[index][last];
        if depth > 0.0 {
            volume += depth * sliced(points[..=index].to_vec(), &reference[..last]);
        }
    }
    volume
}
