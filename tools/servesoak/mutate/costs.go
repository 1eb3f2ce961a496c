package mutate

import (
	"math"
	"math/rand/v2"

	"google.golang.org/protobuf/encoding/protowire"
)

// A cost is a piece of a graph that costs dearly or breaks. It may use "nought", a scalar float that is about 0 and
// depends on the input, and "input". Its result is the scalar float "cost".
type cost struct {
	name string
	make func(draw *rand.Rand) []*field
}

// sum ends a cost: the values of a tensor become a scalar.
func sum(of string) *field {
	return node("ReduceMax", []string{of}, []string{"cost"}, attributeInt("keepdims", 0))
}

// large is a size that memory does not hold, or just holds.
func large(draw *rand.Rand) float64 {
	return pick[float64](draw, 1<<27, 1<<28, 1<<30, 1<<31, 1<<32, 1<<33, 1<<40, 1<<61, math.MaxInt32, -1, -(1 << 40))
}

var costs = []cost{
	{"expand", func(draw *rand.Rand) []*field {
		return []*field{integers("much", large(draw)), node("Expand", []string{"nought", "much"}, []string{"wide"}),
			sum("wide")}
	}},
	{"expand in many dimensions", func(draw *rand.Rand) []*field {
		return []*field{integers("much", 1<<16, 1<<16, float64(1+draw.IntN(1<<20)), 2), node("Expand",
			[]string{"nought", "much"},
			[]string{"wide"}), sum("wide")}
	}},
	{"tile", func(draw *rand.Rand) []*field {
		return []*field{integers("one", 1), integers("much", large(draw)),
			node("Reshape", []string{"nought", "one"}, []string{"line"}),
			node("Tile", []string{"line", "much"}, []string{"wide"}), sum("wide")}
	}},
	{"constant of shape", func(draw *rand.Rand) []*field {
		return []*field{integers("much", large(draw), pick(draw, 1.0, 2, 1<<30)),
			node("ConstantOfShape", []string{"much"}, []string{"wide"}), sum("wide")}
	}},
	{"range", func(draw *rand.Rand) []*field {
		return []*field{constant("zero", float32s, nil, 0), constant("end", float32s, nil, large(draw)),
			constant("step", float32s, nil, pick(draw, 1, 1e-30, 0, math.NaN(), -1)),
			node("Range", []string{"zero", "end", "step"}, []string{"wide"}), sum("wide")}
	}},
	{"random", func(draw *rand.Rand) []*field {
		return []*field{node("RandomUniform", nil, []string{"wide"}, attributeInts("shape", int64(large(draw)), 4)),
			sum("wide")}
	}},
	{"one hot", func(draw *rand.Rand) []*field {
		return []*field{integers("which", 1, 2), constant("depth", int64s, nil, large(draw)),
			constant("onoff", float32s, []int64{2}, 0, 1),
			node("OneHot", []string{"which", "depth", "onoff"}, []string{"wide"}), sum("wide")}
	}},
	{"pad", func(draw *rand.Rand) []*field {
		return []*field{integers("pads", 0, 0, 0, 0, 0, 0, 0, large(draw)),
			node("Pad", []string{"input", "pads"}, []string{"wide"}), sum("wide")}
	}},
	{"resize", func(draw *rand.Rand) []*field {
		return []*field{constant("scales", float32s, []int64{4}, 1, 1, pick(draw, 1e4, 1e9, math.Inf(1), math.NaN(),
			0, -1), 1e4),
			node("Resize", []string{"input", "", "scales"}, []string{"wide"}), sum("wide")}
	}},
	{"matrices", func(draw *rand.Rand) []*field {
		n := pick(draw, 4096.0, 16384, 1<<20)
		return []*field{integers("square", n, n), node("Expand", []string{"nought", "square"}, []string{"a"}),
			node("MatMul", []string{"a", "a"}, []string{"b"}), node("MatMul", []string{"b", "a"}, []string{"wide"}),
			sum("wide")}
	}},
	{"convolution", func(draw *rand.Rand) []*field {
		n := pick(draw, 1<<14, 1<<30)
		return []*field{integers("much", 1, 3, 512, 512), node("Expand", []string{"nought", "much"}, []string{"a"}),
			integers("kernel", float64(n), 3, 17, 17), node("Expand", []string{"nought", "kernel"}, []string{"w"}),
			node("Conv", []string{"a", "w"}, []string{"wide"}), sum("wide")}
	}},
	{"transposed convolution", func(draw *rand.Rand) []*field {
		return []*field{integers("kernel", 3, 1, 3, 3), node("Expand", []string{"nought", "kernel"}, []string{"w"}),
			node("ConvTranspose", []string{"input", "w"}, []string{"wide"},
				attributeInts("strides", int64(pick(draw, 1<<12, 1<<30)), 1<<12)), sum("wide")}
	}},
	{"gather outside", func(draw *rand.Rand) []*field {
		return []*field{integers("where", large(draw)), node("Gather", []string{"input", "where"}, []string{"wide"}),
			sum("wide")}
	}},
	{"gather outside by coordinates", func(draw *rand.Rand) []*field {
		return []*field{constant("where", int64s, []int64{1, 4}, 0, large(draw), 1<<40, 0),
			node("GatherND", []string{"input", "where"}, []string{"wide"}), sum("wide")}
	}},
	{"scatter outside", func(draw *rand.Rand) []*field {
		return []*field{constant("where", int64s, []int64{1, 4}, 0, large(draw), 1<<40, 0),
			constant("what", float32s, []int64{1}, 1),
			node("ScatterND", []string{"input", "where", "what"}, []string{"wide"}), sum("wide")}
	}},
	{"scatter elements outside", func(draw *rand.Rand) []*field {
		return []*field{constant("where", int64s, []int64{1, 1, 1, 1}, large(draw)),
			constant("what", float32s, []int64{1, 1, 1, 1}, 1),
			node("ScatterElements", []string{"input", "where", "what"}, []string{"wide"}), sum("wide")}
	}},
	{"unpool outside", func(draw *rand.Rand) []*field {
		return []*field{constant("a", float32s, []int64{1, 1, 1, 1}, 1), constant("where", int64s, []int64{1, 1, 1,
			1}, large(draw)),
			node("MaxUnpool", []string{"a", "where"}, []string{"wide"}, attributeInts("kernel_shape", 2, 2)),
			sum("wide")}
	}},
	{"integer division by zero", func(draw *rand.Rand) []*field {
		return []*field{node("Cast", []string{"nought"}, []string{"i"}, attributeInt("to", pick(draw, int64(int64s),
			6))),
			node(pick(draw, "Div", "Mod"), []string{"i", "i"}, []string{"q"}),
			node("Cast", []string{"q"}, []string{"cost"}, attributeInt("to", float32s))}
	}},
	{"smallest integer by minus one", func(*rand.Rand) []*field {
		return []*field{node("Cast", []string{"nought"}, []string{"i"}, attributeInt("to", int64s)),
			constant("least", int64s, nil, math.MinInt64), constant("minus", int64s, nil, -1),
			node("Add", []string{"i", "least"}, []string{"a"}), node("Add", []string{"i", "minus"}, []string{"b"}),
			node("Div", []string{"a", "b"}, []string{"q"}),
			node("Cast", []string{"q"}, []string{"cost"}, attributeInt("to", float32s))}
	}},
	{"endless loop", func(*rand.Rand) []*field { return loop(nil, false) }},
	{"endless loop that grows", func(*rand.Rand) []*field { return loop(nil, true) }},
	{"endless loop of dear steps", func(draw *rand.Rand) []*field {
		return loop([]*field{integers("square", 2048, 2048), node("Expand", []string{"v", "square"}, []string{"a"}),
			node("MatMul", []string{"a", "a"}, []string{"b"})}, false)
	}},
	{"align of regions", func(draw *rand.Rand) []*field {
		return []*field{constant("rois", float32s, []int64{1, 4}, -1e30, 0, math.Inf(1), 1e30), integers("image",
			large(draw)),
			node("RoiAlign", []string{"input", "rois", "image"}, []string{"wide"},
				attributeInt("output_height", pick[int64](draw, 8, 1<<30)),
				attributeInt("output_width", pick[int64](draw, 8, 1<<30)),
				attributeInt("sampling_ratio", pick[int64](draw, 0, 1<<20))), sum("wide")}
	}},
	{"pick many", func(draw *rand.Rand) []*field {
		return []*field{integers("k", large(draw)), node("TopK", []string{"input", "k"}, []string{"wide", "at"}),
			sum("wide")}
	}},
	{"recurrent", func(draw *rand.Rand) []*field {
		h := int64(pick(draw, 1<<14, 1<<30))
		return []*field{integers("line", 1<<20, 1, 1), node("Expand", []string{"nought", "line"}, []string{"s"}),
			integers("wshape", 1, float64(4*h), 1), node("Expand", []string{"nought", "wshape"}, []string{"w"}),
			integers("rshape", 1, float64(4*h), float64(h)), node("Expand", []string{"nought", "rshape"},
				[]string{"r"}),
			node("LSTM", []string{"s", "w", "r"}, []string{"wide"}, attributeInt("hidden_size", h)), sum("wide")}
	}},
	{"einsum", func(draw *rand.Rand) []*field {
		return []*field{integers("square", 4096, 4096), node("Expand", []string{"nought", "square"}, []string{"a"}),
			node("Einsum", []string{"a", "a"}, []string{"wide"}, attribute("equation", 3, bytesOf(4,
				pick(draw, "ij,kl->ijkl", "ij,jk->ik", "...,...", "i->", "ij,jk->zz", "(((")))), sum("wide")}
	}},
	{"reshape to another size", func(draw *rand.Rand) []*field {
		return []*field{integers("much", large(draw), -1, 0), node("Reshape", []string{"input", "much"},
			[]string{"wide"}),
			sum("wide")}
	}},
	{"slice", func(draw *rand.Rand) []*field {
		return []*field{integers("from", math.MinInt64), integers("to", math.MaxInt64), integers("axes", 3),
			integers("steps", pick[float64](draw, 0, math.MinInt64, math.MaxInt64, -1)),
			node("Slice", []string{"input", "from", "to", "axes", "steps"}, []string{"wide"}), sum("wide")}
	}},
	{"sequence of a loop", func(draw *rand.Rand) []*field {
		return []*field{node("SequenceEmpty", nil, []string{"list"}), node("SequenceInsert", []string{"list",
			"input"}, []string{"more"}),
			constant("at", int64s, nil, large(draw)), node("SequenceAt", []string{"more", "at"}, []string{"wide"}),
			sum("wide")}
	}},
	{"name of a file", func(draw *rand.Rand) []*field {
		t := tensor("", float32s, []int64{4})
		t = append(t[:len(t)-1], number(14, 1), &field{number: 13, form: protowire.BytesType,
			sub: &message{inEntry, []*field{bytesOf(1, "location"), bytesOf(2, pick(draw, "/etc/passwd",
				"../../../etc/hostname", "/dev/zero", "/proc/self/mem", "*/_ORT_MEM_ADDR_/*"))}}})
		return []*field{node("Constant", nil, []string{"wide"}, attribute("value", 4, within(5, inTensor, t...))),
			sum("wide")}
	}},
	{"deep branches", func(draw *rand.Rand) []*field { return branches(pick(draw, 10, 40, 90, 200, 1000), "cost") }},
}

// loop runs a body for ever, or until an iteration count overflows.
func loop(body []*field, grows bool) []*field {
	graph := append([]*field{
		value(11, "n", int64s, []int64{}), value(11, "go", 9, []int64{}), value(11, "v", float32s, []int64{}),
		node("Identity", []string{"go"}, []string{"on"}), node("Identity", []string{"v"}, []string{"next"}),
		value(12, "on", 9, []int64{}), value(12, "next", float32s, []int64{})}, body...)
	outputs := []string{"cost"}
	if grows {
		graph = append(graph, integers("page", 1<<16), node("Expand", []string{"v", "page"}, []string{"kept"}),
			value(12, "kept", float32s, []int64{1 << 16}))
		outputs = append(outputs, "all")
	}
	return []*field{constant("forever", int64s, nil, math.MaxInt64/2), constant("yes", 9, nil, 1),
		node("Loop", []string{"forever", "yes", "nought"}, outputs, attributeGraph("body", graph))}
}

// branches nests If in If.
func branches(depth int, out string) []*field {
	inner := []*field{node("Identity", []string{"nought"}, []string{out})}
	for range depth {
		branch := func(name string) *field {
			return attributeGraph(name, append(append([]*field(nil), inner...), value(12, out, float32s, []int64{})))
		}
		plain := attributeGraph("else_branch", []*field{node("Identity", []string{"nought"}, []string{out}),
			value(12, out, float32s, []int64{})})
		inner = []*field{node("If", []string{"plain_input"}, []string{out}, branch("then_branch"), plain)}
	}
	return inner
}
