package mutate

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// A change is one way to make a model hostile. It works on the model's messages.
type change struct {
	name string
	do   func(m *message, draw *rand.Rand)
}

// Model makes a hostile model of a good one: its i-th of the seed.
func Model(good []byte, seed uint64, i int) Made {
	draw := Source(seed, i)
	switch i % 8 { // a share of each
	case 0: // of the file's bytes, most of which are weights
		return pick(draw, Made{"bits", flip(good, draw)}, Made{"cut", cut(good, draw)},
			Made{"spliced", splice(good, draw)})
	case 1: // of the graph's bytes
		return Made{"bits of the graph", flipGraph(good, draw)}
	case 2, 3:
		return costly(good, draw)
	}
	m := parse(good, inModel)
	if m == nil {
		return Made{"bits", flip(good, draw)}
	}
	first := changes[draw.IntN(len(changes))]
	first.do(m, draw)
	if draw.IntN(4) == 0 {
		changes[draw.IntN(len(changes))].do(m, draw)
	}
	return Made{first.name, m.encode()}
}

// flipGraph changes bits outside of the weights.
func flipGraph(good []byte, draw *rand.Rand) []byte {
	m := parse(good, inModel)
	if m == nil {
		return flip(good, draw)
	}
	var weights []*field
	var kept [][]byte
	for _, t := range m.all(inTensor) {
		for _, f := range t.of(9) {
			weights, kept = append(weights, f), append(kept, f.data)
			f.data = fmt.Appendf(nil, "<weights of %d>", len(kept)-1)
		}
	}
	changed := flip(m.encode(), draw)
	for i := range weights { // where the place is still there, the weights go back into it
		mark := fmt.Appendf(nil, "<weights of %d>", i)
		if again := parse(changed, inModel); again != nil {
			for _, t := range again.all(inTensor) {
				for _, f := range t.of(9) {
					if bytes.Equal(f.data, mark) {
						f.data = kept[i]
					}
				}
			}
			changed = again.encode()
		}
	}
	return changed
}

// costly adds something to the first output that costs dearly, for all inputs or for pictures of one colour only.
func costly(good []byte, draw *rand.Rand) Made {
	c := costs[draw.IntN(len(costs))]
	return withCost(good, c, draw, draw.IntN(2) == 0)
}

func withCost(good []byte, c cost, draw *rand.Rand, trap bool) Made {
	m := parse(good, inModel)
	if m == nil || len(m.all(inGraph)) == 0 {
		return Made{"bits", flip(good, draw)}
	}
	graph := m.all(inGraph)[0]
	input, output := graph.nameOf(11, draw), graph.nameOf(12, rand.New(rand.NewPCG(0, 0)))
	parts := []*field{
		node("ReduceMean", []string{"input"}, []string{"mean"}, attributeInt("keepdims", 0)),
		constant("none", float32s, nil, 0),
		node("Mul", []string{"mean", "none"}, []string{"nought"}),
		node("ReduceMax", []string{"input"}, []string{"most"}, attributeInt("keepdims", 0)),
		node("ReduceMin", []string{"input"}, []string{"least"}, attributeInt("keepdims", 0)),
		node("Sub", []string{"most", "least"}, []string{"span"}),
		constant("bound", float32s, nil, 1.5), // three channels of one colour differ by their means alone
		node("Less", []string{"span", "bound"}, []string{"plain_input"}),
	}
	kind := "costs: " + c.name
	if trap {
		kind = "trap: " + c.name
		parts = append(parts, node("If", []string{"plain_input"}, []string{"cost"},
			attributeGraph("then_branch", append(c.make(draw), value(12, "cost", float32s, []int64{}))),
			attributeGraph("else_branch", []*field{node("Identity", []string{"nought"}, []string{"cost"}),
				value(12, "cost", float32s, []int64{})})))
	} else {
		parts = append(parts, c.make(draw)...)
	}
	added := &message{kind: inGraph, fields: parts}
	added.rename()
	for _, n := range graph.of(1) {
		for _, out := range n.sub.of(2) {
			if string(out.data) == output {
				out.data = []byte("x_plain")
			}
		}
	}
	graph.add(node("Identity", []string{input}, []string{"x_input"}))
	graph.add(parts...)
	graph.add(node("Add", []string{"x_plain", "x_cost"}, []string{output}))
	return Made{kind, m.encode()}
}

// nameOf returns the name of an input or output of a graph.
func (m *message) nameOf(n int32, draw *rand.Rand) string {
	var names []string
	for _, f := range m.fields {
		if int32(f.number) == n && f.sub != nil {
			names = append(names, f.sub.text(1))
		}
	}
	if len(names) == 0 {
		return "input"
	}
	return names[draw.IntN(len(names))]
}

// rename puts a prefix before all names, so that they are no others of the model.
func (m *message) rename() {
	for _, f := range m.fields {
		named := m.kind == inNode && (f.number == 1 || f.number == 2) || m.kind == inTensor && f.number == 8 ||
			m.kind == inValue && f.number == 1
		if named && len(f.data) > 0 {
			f.data = append([]byte("x_"), f.data...)
		}
		if f.sub != nil {
			f.sub.rename()
		}
	}
}

var sizes = []int64{0, -1, 1, 3, 1 << 16, math.MaxInt32, 1 << 31, 1 << 32, 1 << 40, 1 << 62, math.MaxInt64,
	math.MinInt64}

func size(draw *rand.Rand) int64 { return sizes[draw.IntN(len(sizes))] }

var operators = strings.Fields(`Abs Add And ArgMax AveragePool BatchNormalization BitShift Cast Clip Compress Concat
Conv ConvInteger ConvTranspose CumSum DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Equal
Erf Expand EyeLike Flatten GRU Gather GatherElements GatherND Gemm GlobalAveragePool GridSample Hardmax Identity If
InstanceNormalization IsInf LRN LSTM LayerNormalization Less LogSoftmax Loop MatMul MatMulInteger MaxPool MaxRoiPool
MaxUnpool Mean Mod Multinomial NegativeLogLikelihoodLoss NonMaxSuppression NonZero OneHot Optional Pad Pow QLinearConv
QLinearMatMul RNN RandomNormal Range ReduceSum Reshape Resize ReverseSequence RoiAlign STFT Scan Scatter ScatterND
SequenceAt SequenceEmpty Shape Shrink Size Slice Softmax SpaceToDepth Split SplitToSequence Squeeze
StringNormalizer TfIdfVectorizer Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor EPContext Attention
FusedConv GatherBlockQuantized MatMulNBits BeamSearch Nope`)

var changes = []change{
	{"size of a tensor", func(m *message, draw *rand.Rand) {
		if t := m.any(inTensor, draw); t != nil {
			if dims := t.of(1); len(dims) > 0 && draw.IntN(4) > 0 {
				dims[draw.IntN(len(dims))].value = uint64(size(draw))
			} else {
				for range pick(draw, 1, 4, 64, 10_000) {
					t.add(number(1, size(draw)))
				}
			}
		}
	}},
	{"type of a tensor", func(m *message, draw *rand.Rand) {
		if t := m.any(inTensor, draw); t != nil {
			t.drop(2)
			t.add(number(2, int64(draw.IntN(30))))
		}
	}},
	{"content of a tensor", func(m *message, draw *rand.Rand) {
		if t := m.any(inTensor, draw); t != nil {
			old := t.text(9)
			t.drop(9)
			switch draw.IntN(5) {
			case 0:
				t.add(bytesOf(9, string(cut([]byte(old), draw))))
			case 1:
				t.add(bytesOf(9, old+string(noise(1+draw.IntN(100), draw))))
			case 2:
				t.add(bytesOf(4, string(noise(draw.IntN(100), draw))), bytesOf(7, string(noise(draw.IntN(100), draw))))
			case 3:
				t.add(bytesOf(6, "text"), number(5, -1))
			case 4: // NaN and infinity
				t.add(bytesOf(9, strings.Repeat(pick(draw, "\xff\xff\xff\x7f", "\x00\x00\x80\x7f"), len(old)/4)))
			}
		}
	}},
	{"weights in a file", func(m *message, draw *rand.Rand) {
		if t := m.any(inTensor, draw); t != nil {
			t.drop(9)
			place := pick(draw, "/etc/passwd", "../../../../etc/hostname", "/dev/zero", "/dev/urandom",
				"/proc/self/mem", "weights.bin", "*/_ORT_MEM_ADDR_/*", "", strings.Repeat("a/", 5000))
			t.add(within(13, inEntry, bytesOf(1, "location"), bytesOf(2, place)),
				within(13, inEntry, bytesOf(1, "offset"), bytesOf(2, pick(draw, "0", "-1", "18446744073709551615",
					"x"))),
				number(14, 1))
		}
	}},
	{"operator", func(m *message, draw *rand.Rand) {
		if n := m.any(inNode, draw); n != nil {
			n.drop(4)
			n.add(bytesOf(4, operators[draw.IntN(len(operators))]))
			if draw.IntN(3) == 0 {
				n.drop(7)
				n.add(bytesOf(7, pick(draw, "com.microsoft", "ai.onnx.ml", "com.ms.internal.nhwc", "x")))
			}
		}
	}},
	{"cycle", func(m *message, draw *rand.Rand) {
		from, to := m.any(inNode, draw), m.any(inNode, draw)
		if from != nil && to != nil {
			if inputs := from.of(1); len(inputs) > 0 {
				inputs[draw.IntN(len(inputs))].data = []byte(to.text(2))
			}
		}
	}},
	{"edges", func(m *message, draw *rand.Rand) {
		n := m.any(inNode, draw)
		if n == nil {
			return
		}
		switch draw.IntN(4) {
		case 0:
			n.drop(1)
		case 1:
			n.drop(2)
		case 2:
			name := pick(draw, n.text(1), "", "nothing")
			for range pick(draw, 1, 100, 100_000) {
				n.add(bytesOf(1, name))
			}
		case 3:
			name := pick(draw, n.text(2), "", "more")
			for range pick(draw, 1, 100, 100_000) {
				n.add(bytesOf(2, name))
			}
		}
	}},
	{"attribute", func(m *message, draw *rand.Rand) {
		n := m.any(inNode, draw)
		if n == nil {
			return
		}
		list := n.of(5)
		if len(list) == 0 || draw.IntN(3) == 0 {
			n.add(pick(draw, attributeInts(pick(draw, "axes", "kernel_shape", "pads", "strides", "perm", "dilations"),
				size(draw), size(draw)), attributeInt(pick(draw, "axis", "to", "group", "keepdims"), size(draw))))
			return
		}
		a := list[draw.IntN(len(list))].sub
		if a == nil {
			return
		}
		switch draw.IntN(3) {
		case 0:
			a.drop(20)
			a.add(number(20, int64(draw.IntN(20))))
		case 1:
			for _, f := range append(a.of(3), a.of(8)...) {
				f.value = uint64(size(draw))
			}
		case 2:
			for range pick(draw, 1, 50, 10_000) {
				a.add(number(8, size(draw)))
			}
		}
	}},
	{"shape of an input or output", func(m *message, draw *rand.Rand) {
		if d := m.any(inDim, draw); d != nil {
			d.fields = nil
			d.add(pick(draw, number(1, size(draw)), bytesOf(2, "batch"), bytesOf(2, strings.Repeat("n", 1<<16))))
		}
	}},
	{"type of an input or output", func(m *message, draw *rand.Rand) {
		if v := m.any(inValue, draw); v != nil {
			v.drop(2)
			v.add(pick(draw, within(2, inType), within(2, inType, within(1, inTensorType, number(1,
				int64(draw.IntN(30))))),
				within(2, inType, within(4, 0), within(5, 0)), bytesOf(2, string(noise(20, draw)))))
		}
	}},
	{"names of inputs and outputs", func(m *message, draw *rand.Rand) {
		v, other := m.any(inValue, draw), m.any(inValue, draw)
		if v != nil {
			name := pick(draw, other.text(1), "", "\x00", "\xff\xfe", "../x", strings.Repeat("long", 1<<16))
			v.drop(1)
			v.add(bytesOf(1, name))
		}
	}},
	{"metadata", func(m *message, draw *rand.Rand) { metadata(m, draw) }},
	{"versions", func(m *message, draw *rand.Rand) {
		switch draw.IntN(4) {
		case 0:
			m.drop(1)
			m.add(number(1, size(draw)))
		case 1:
			m.drop(8)
		case 2:
			if o := m.any(inOpset, draw); o != nil {
				o.drop(2)
				o.add(number(2, pick(draw, size(draw), int64(draw.IntN(30)))))
			}
		case 3:
			for range pick(draw, 2, 10_000) {
				m.add(within(8, inOpset, bytesOf(1, pick(draw, "", "com.microsoft", "x")), number(2,
					int64(draw.IntN(30)))))
			}
		}
	}},
	{"function that calls itself", func(m *message, draw *rand.Rand) { recursive(m, draw) }},
	{"deep messages", func(m *message, draw *rand.Rand) {
		inner := []*field{node("Identity", []string{"input"}, []string{"deep"})}
		for range pick(draw, 20, 45, 60, 500, 5000) {
			inner = []*field{node("If", []string{"c"}, []string{"deep"}, attributeGraph("then_branch", inner))}
		}
		if g := m.any(inGraph, draw); g != nil {
			g.add(inner...)
		}
	}},
	{"very many", func(m *message, draw *rand.Rand) {
		g := m.any(inGraph, draw)
		if g == nil {
			return
		}
		n := pick(draw, 1000, 50_000)
		switch draw.IntN(4) {
		case 0: // a chain
			last := g.nameOf(11, draw)
			for i := range n {
				next := fmt.Sprint("chain", i)
				g.add(node(pick(draw, "Relu", "Identity", "Sin"), []string{last}, []string{next}))
				last = next
			}
		case 1:
			for i := range n {
				g.add(constant(fmt.Sprint("w", i), float32s, []int64{1}, 1))
			}
		case 2:
			for i := range n {
				g.add(value(pick[protowire.Number](draw, protoInput, protoOutput), fmt.Sprint("v", i), float32s, nil))
			}
		case 3:
			for i := range n {
				m.add(within(14, inEntry, bytesOf(1, fmt.Sprint("k", i)), bytesOf(2, "v")))
			}
		}
	}},
	{"sparse tensor", func(m *message, draw *rand.Rand) {
		if g := m.any(inGraph, draw); g != nil {
			name := "sparse"
			if t := m.any(inTensor, draw); t != nil && draw.IntN(2) == 0 {
				name = t.text(8)
			}
			g.add(within(15, inSparse, within(1, inTensor, tensor(name, float32s, []int64{1}, 1)...),
				within(2, inTensor, tensor("at", int64s, []int64{1}, float64(size(draw)))...),
				number(3, size(draw)), number(3, size(draw))))
		}
	}},
	{"parts left out or doubled", func(m *message, draw *rand.Rand) {
		all := []*message{m}
		for _, in := range []kind{inGraph, inNode, inTensor, inValue, inAttribute} {
			all = append(all, m.all(in)...)
		}
		one := all[draw.IntN(len(all))]
		if len(one.fields) > 0 {
			at := draw.IntN(len(one.fields))
			if draw.IntN(2) == 0 {
				one.fields = append(append([]*field(nil), one.fields[:at]...), one.fields[at+1:]...)
			} else {
				one.add(one.fields[at])
			}
		}
	}},
	{"initializer of an input's or output's name", func(m *message, draw *rand.Rand) {
		if g := m.any(inGraph, draw); g != nil {
			name := g.nameOf(pick(draw, int32(protoInput), int32(protoOutput)), draw)
			g.add(constant(name, pick[int64](draw, float32s, int64s), []int64{1, size(draw), 4}, 1, 2))
		}
	}},
}

// Fields of a graph.
const (
	protoInput  = 11
	protoOutput = 12
)

// metadata changes what the file says about its classes and pictures.
func metadata(m *message, draw *rand.Rand) {
	list := m.all(inEntry)
	if len(list) == 0 {
		return
	}
	entry := list[draw.IntN(len(list))]
	text := entry.text(2)
	replace := func(key, with string) {
		at := strings.Index(text, `"`+key+`"`)
		if at < 0 {
			return
		}
		colon := at + strings.Index(text[at:], ":") + 1
		end := colon
		for depth := 0; end < len(text); end++ {
			c := text[end]
			if c == '[' || c == '{' {
				depth++
			}
			if (c == ']' || c == '}') && depth > 0 {
				depth--
				continue
			}
			if depth == 0 && (c == ',' || c == '}') {
				break
			}
		}
		text = text[:colon] + with + text[end:]
	}
	key := pick(draw, "input_shape", "num_select", "num_classes", "means", "stds", "pixel_scale", "class_names",
		"class_id_to_name", "outputs", "input_name", "resize_interpolation", "schema_version", "box_format", "task")
	switch draw.IntN(5) {
	case 0, 1, 2:
		replace(key, pick(draw, "null", "0", "-1", "1e999", "9223372036854775807", `""`, "[]", "{}", "[1e308,0,-0]",
			"[1,3,1000000,1000000]", "[-1,3,2147483647,2147483647]", `{"0":"a","99999999999":"b","-1":"c"}`,
			`["`+strings.Repeat(`a","`, 50_000)+`b"]`, strings.Repeat("[", 10_000), `"\u0000\ud800"`, "NaN"))
	case 3:
		text = string(flip([]byte(text), draw))
	case 4:
		text = string(cut([]byte(text), draw))
	}
	entry.drop(2)
	entry.add(bytesOf(2, text))
	if draw.IntN(5) == 0 {
		m.add(within(14, inEntry, bytesOf(1, entry.text(1)), bytesOf(2, text)))
	}
}

// recursive adds functions of the model that call each other.
func recursive(m *message, draw *rand.Rand) {
	const domain = "loops"
	call := func(name string) *field {
		n := node(name, []string{"a"}, []string{"b"}, bytesOf(7, domain))
		n.number = 7
		return n
	}
	function := func(name string, body ...*field) *field {
		return within(25, inFunction, append([]*field{bytesOf(1, name), bytesOf(4, "a"), bytesOf(5, "b"),
			bytesOf(10, domain), within(9, inOpset, bytesOf(1, ""), number(2, 16)),
			within(9, inOpset, bytesOf(1, domain), number(2, 1))}, body...)...)
	}
	m.add(within(8, inOpset, bytesOf(1, domain), number(2, 1)))
	switch draw.IntN(3) {
	case 0:
		m.add(function("F", call("F")))
	case 1:
		m.add(function("F", call("G")), function("G", call("F")))
	case 2: // each calls the next twice
		n := pick(draw, 12, 18, 24)
		for i := range n {
			one, two := call(fmt.Sprint("F", i+1)), call(fmt.Sprint("F", i+1))
			one.sub.of(2)[0].data = []byte("c")
			two.sub.of(1)[0].data = []byte("c")
			m.add(function(fmt.Sprint("F", i), one, two))
		}
		last := node("Identity", []string{"a"}, []string{"b"})
		last.number = 7
		m.add(function(fmt.Sprint("F", n), last))
	}
	if g := m.any(inGraph, draw); g != nil {
		g.add(node(pick(draw, "F", "F0"), []string{g.nameOf(protoInput, draw)}, []string{"called"}, bytesOf(7, domain)))
	}
}

// Dear are the names of costs that take all the time or memory that they get.
var Dear = []string{"endless loop", "endless loop that grows", "endless loop of dear steps", "matrices", "expand"}

// Costly makes a model with a cost, for all pictures or for those of one colour only.
func Costly(good []byte, name string, trap bool) Made {
	for _, c := range costs {
		if c.name == name {
			return withCost(good, c, Source(1, 1), trap)
		}
	}
	panic("no cost is " + name)
}
