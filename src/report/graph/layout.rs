//! Where boxes and edges go: layers from the top down, after Sugiyama, Tagawa and Toda (1981).

/// Most boxes beside each other, in all but the largest graphs; what is more goes a layer down.
const BOXES_IN_LAYER: usize = 6;
/// Between neighbours.
const GAP: f64 = 24.0;
/// Between layers, where edges bend.
const LAYER_GAP: f64 = 46.0;
/// Room for an edge that passes a layer.
const PASSAGE: f64 = 6.0;
/// How often boxes are drawn towards what they are connected to.
const SWEEPS: usize = 6;

/// How large a box is, in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Everything in its place; the upper left corner is the origin.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// The upper left corners of the boxes.
    pub(super) corners: Vec<(f64, f64)>,
    /// The ways of edges, each from the lower side of a box to the upper side of another: a point
    /// where it leaves, then two for each layer that it passes straight down, then one where it
    /// arrives.
    pub(super) routes: Vec<Vec<(f64, f64)>>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// A box, or a place where an edge passes a layer.
struct Vertex {
    layer: usize,
    width: f64,
    above: Vec<usize>,
    below: Vec<usize>,
    /// Its centre.
    x: f64,
}

/// Places boxes and edges. Every edge leads from a box to one with a larger number.
pub(super) fn layout(sizes: &[Size], edges: &[(usize, usize)]) -> Layout {
    let mut vertices = layered(sizes, edges);
    let chains: Vec<Vec<usize>> = edges.iter().map(|edge| chain(&mut vertices, *edge)).collect();
    let count = vertices.iter().map(|vertex| vertex.layer + 1).max().unwrap_or(0);
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (index, vertex) in vertices.iter().enumerate() {
        layers[vertex.layer].push(index);
    }
    order(&mut layers, &vertices);
    place(&layers, &mut vertices);

    let heights: Vec<f64> = layers
        .iter()
        .map(|layer| {
            let boxes = layer.iter().filter_map(|index| sizes.get(*index));
            boxes.map(|size| size.height).fold(0.0, f64::max)
        })
        .collect();
    let mut tops = Vec::with_capacity(count);
    let mut y = 0.0;
    for height in &heights {
        tops.push(y);
        y += height + LAYER_GAP;
    }
    let left = vertices.iter().map(|one| one.x - one.width / 2.0).fold(f64::INFINITY, f64::min);
    let right = vertices.iter().map(|one| one.x + one.width / 2.0).fold(0.0, f64::max);
    for vertex in &mut vertices {
        vertex.x -= left;
    }
    let routes = chains
        .iter()
        .map(|chain| {
            let last = chain.len() - 1;
            let points = chain.iter().enumerate().flat_map(|(position, index)| {
                let Vertex { layer, x, .. } = vertices[*index];
                let top = tops[layer];
                // A box that is lower than its layer leaves room below.
                let bottom = top + sizes.get(*index).map_or(heights[layer], |size| size.height);
                let leaves = (position < last).then_some((x, bottom));
                let arrives = (position > 0).then_some((x, top));
                arrives.into_iter().chain(leaves)
            });
            points.collect()
        })
        .collect();
    let corners = vertices.iter().zip(sizes);
    let corners = corners.map(|(one, size)| (one.x - size.width / 2.0, tops[one.layer])).collect();
    let width = if right > left { right - left } else { 0.0 };
    Layout { corners, routes, width, height: (y - LAYER_GAP).max(0.0) }
}

/// Each box below all that it comes after, and as high as there is room.
fn layered(sizes: &[Size], edges: &[(usize, usize)]) -> Vec<Vertex> {
    let mut above = vec![Vec::new(); sizes.len()];
    for (from, to) in edges {
        above[*to].push(*from);
    }
    // A large graph is not to become a narrow tower through which all edges wind.
    let most = BOXES_IN_LAYER.max(sizes.len().isqrt());
    let mut taken: Vec<usize> = Vec::new();
    let mut vertices: Vec<Vertex> = Vec::with_capacity(sizes.len());
    for (size, above) in sizes.iter().zip(above) {
        let below = |earlier: &usize| vertices.get(*earlier).map_or(0, |one| one.layer + 1);
        let mut layer = above.iter().map(below).max().unwrap_or(0);
        while taken.get(layer).is_some_and(|taken| *taken >= most) {
            layer += 1;
        }
        if taken.len() <= layer {
            taken.resize(layer + 1, 0);
        }
        taken[layer] += 1;
        let (above, below) = (Vec::new(), Vec::new());
        vertices.push(Vertex { layer, width: size.width, above, below, x: 0.0 });
    }
    vertices
}

/// The vertices of an edge, with one for every layer that it passes.
fn chain(vertices: &mut Vec<Vertex>, (from, to): (usize, usize)) -> Vec<usize> {
    let mut chain = vec![from];
    for layer in vertices[from].layer + 1..vertices[to].layer {
        let (above, below) = (Vec::new(), Vec::new());
        vertices.push(Vertex { layer, width: PASSAGE, above, below, x: 0.0 });
        chain.push(vertices.len() - 1);
    }
    chain.push(to);
    for pair in chain.windows(2) {
        vertices[pair[0]].below.push(pair[1]);
        vertices[pair[1]].above.push(pair[0]);
    }
    chain
}

/// Puts each vertex of a layer where its neighbours in the layer before are in the middle, down and
/// up again: few edges cross then.
fn order(layers: &mut [Vec<usize>], vertices: &[Vertex]) {
    let mut position = vec![0.0; vertices.len()];
    let settle = |layer: &[usize], position: &mut Vec<f64>| {
        for (place, index) in layer.iter().enumerate() {
            position[*index] = place as f64;
        }
    };
    for layer in layers.iter() {
        settle(layer, &mut position);
    }
    let count = layers.len();
    let down = (0..count).map(|layer| (layer, true));
    let up = (0..count).rev().map(|layer| (layer, false));
    for (layer, from_above) in down.chain(up) {
        let key = |index: &usize| {
            let vertex = &vertices[*index];
            let neighbours = if from_above { &vertex.above } else { &vertex.below };
            mean(neighbours.iter().map(|one| position[*one])).unwrap_or(position[*index])
        };
        let mut keyed: Vec<(f64, usize)> =
            layers[layer].iter().map(|index| (key(index), *index)).collect();
        keyed.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        layers[layer] = keyed.into_iter().map(|(_, index)| index).collect();
        settle(&layers[layer], &mut position);
    }
}

/// Draws vertices towards the middle of what they are connected to, as far as their order lets them.
fn place(layers: &[Vec<usize>], vertices: &mut [Vertex]) {
    for layer in layers {
        let width: f64 = layer.iter().map(|index| vertices[*index].width + GAP).sum();
        let mut x = -width / 2.0;
        for index in layer {
            let own = vertices[*index].width;
            vertices[*index].x = x + own / 2.0;
            x += own + GAP;
        }
    }
    for sweep in 0..SWEEPS {
        let from_above = sweep % 2 == 0;
        let count = layers.len();
        for step in 0..count {
            let layer = &layers[if from_above { step } else { count - 1 - step }];
            let wanted: Vec<f64> = layer
                .iter()
                .map(|index| {
                    let vertex = &vertices[*index];
                    let neighbours = if from_above { &vertex.above } else { &vertex.below };
                    mean(neighbours.iter().map(|one| vertices[*one].x)).unwrap_or(vertex.x)
                })
                .collect();
            let widths: Vec<f64> = layer.iter().map(|index| vertices[*index].width).collect();
            for (index, x) in layer.iter().zip(apart(&wanted, &widths)) {
                vertices[*index].x = x;
            }
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

/// The centres nearest to the wanted ones (least squares) at which neighbours do not overlap, by
/// pooling adjacent violators.
fn apart(wanted: &[f64], widths: &[f64]) -> Vec<f64> {
    let mut offsets = Vec::with_capacity(wanted.len());
    let mut offset = 0.0;
    for (position, width) in widths.iter().enumerate() {
        if position > 0 {
            offset += (widths[position - 1] + width) / 2.0 + GAP;
        }
        offsets.push(offset);
    }
    // Without what they are apart at least, centres only must not decrease.
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (wanted, offset) in wanted.iter().zip(&offsets) {
        let mut pool = (wanted - offset, 1);
        while let Some((before, count)) = pools.pop_if(|(before, _)| *before > pool.0) {
            let total = count + pool.1;
            let sum = before * count as f64 + pool.0 * pool.1 as f64;
            pool = (sum / total as f64, total);
        }
        pools.push(pool);
    }
    let centres = pools.iter().flat_map(|(centre, count)| std::iter::repeat_n(*centre, *count));
    centres.zip(&offsets).map(|(centre, offset)| centre + offset).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_do_not_overlap_and_edges_lead_down() {
        let size = |number: usize| Size { width: 60.0 + (number % 5) as f64 * 40.0, height: 30.0 };
        let sizes: Vec<Size> = (0..60).map(size).collect();
        let edges: Vec<(usize, usize)> = (1..60).map(|to| ((to * 7) % to, to)).collect();
        let edges: Vec<_> = edges.into_iter().chain((20..60).map(|to| (to - 20, to))).collect();
        let made = layout(&sizes, &edges);
        for (one, size) in made.corners.iter().zip(&sizes) {
            assert!(one.0 >= -0.001 && one.0 + size.width <= made.width + 0.001, "{one:?}");
            assert!(one.1 >= 0.0 && one.1 + size.height <= made.height + 0.001, "{one:?}");
        }
        for (index, (one, size)) in made.corners.iter().zip(&sizes).enumerate() {
            for (other, next) in made.corners[..index].iter().zip(&sizes) {
                let beside = one.0 + size.width <= other.0 || other.0 + next.width <= one.0;
                assert!(beside || one.1 != other.1, "{one:?} {other:?}");
            }
        }
        for route in &made.routes {
            assert!(route.windows(2).all(|pair| pair[0].1 < pair[1].1), "{route:?}");
        }
    }

    #[test]
    fn nothing_takes_no_room() {
        let made = layout(&[], &[]);
        assert_eq!((made.width, made.height), (0.0, 0.0));
    }
}
