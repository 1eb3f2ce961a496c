package mutate

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math/rand/v2"
	"strings"
)

// Picture makes a hostile picture of good JPEG files: the i-th of the seed.
func Picture(good [][]byte, seed uint64, i int) Made {
	draw := Source(seed, i)
	base := good[draw.IntN(len(good))]
	switch i % 5 {
	case 0:
		return pick(draw, Made{"JPEG, bits", flip(base, draw)}, Made{"JPEG, bits of its head", flipHead(base, draw)},
			Made{"JPEG, cut", cut(base, draw)}, Made{"JPEG, spliced", splice(base, draw)})
	case 1, 2:
		return jpegOf(base, draw)
	case 3:
		return pngOf(draw)
	}
	return otherFile(base, draw)
}

// flipHead changes bits before the picture's data.
func flipHead(data []byte, draw *rand.Rand) []byte {
	head := max(0, bytes.Index(data, []byte{0xff, 0xda})) + 12
	head = min(head, len(data))
	return append(flip(data[:head], draw), data[head:]...)
}

// A segment is a marker of a JPEG file with its content.
type segment struct {
	marker byte
	data   []byte
}

// segments splits a JPEG file; rest is the picture's data, from SOS on.
func segments(data []byte) (list []segment, rest []byte) {
	data = data[min(2, len(data)):]
	for len(data) >= 4 && data[0] == 0xff && data[1] != 0xda {
		n := int(binary.BigEndian.Uint16(data[2:]))
		if n < 2 || n+2 > len(data) {
			break
		}
		list = append(list, segment{data[1], data[4 : 2+n]})
		data = data[2+n:]
	}
	return list, data
}

func join(list []segment, rest []byte) []byte {
	out := []byte{0xff, 0xd8}
	for _, s := range list {
		out = append(out, 0xff, s.marker)
		out = binary.BigEndian.AppendUint16(out, uint16(len(s.data)+2))
		out = append(out, s.data...)
	}
	return append(out, rest...)
}

// jpegOf changes the structure of a JPEG file.
func jpegOf(base []byte, draw *rand.Rand) Made {
	if draw.IntN(3) == 0 { // one of few pixels and other sampling
		base = smallJPEG(draw)
	}
	list, rest := segments(base)
	edit := func(markers string, do func(d []byte) []byte) {
		for i, s := range list {
			if strings.IndexByte(markers, s.marker) >= 0 {
				list[i].data = do(append([]byte(nil), s.data...))
			}
		}
	}
	const frames, tables, codes = "\xc0\xc1\xc2", "\xdb", "\xc4"
	length := func(d []byte, at int) bool { return len(d) > at }
	kind := pick(draw, "size", "size", "precision", "components", "sampling", "frame type", "tables", "Huffman codes",
		"no tables", "EXIF", "many segments", "comments", "Adobe", "restart", "scans", "lengths", "no end", "twice",
		"thumbnail", "profile")
	switch kind {
	case "size":
		sizes := []uint16{0, 1, 2, 7, 8191, 8192, 32767, 65500, 65535}
		edit(frames, func(d []byte) []byte {
			if length(d, 4) {
				binary.BigEndian.PutUint16(d[1:], sizes[draw.IntN(len(sizes))])
				binary.BigEndian.PutUint16(d[3:], sizes[draw.IntN(len(sizes))])
			}
			return d
		})
	case "precision":
		edit(frames, func(d []byte) []byte { d[0] = byte(pick(draw, 0, 1, 12, 16, 255)); return d })
	case "components":
		edit(frames, func(d []byte) []byte {
			n := pick(draw, 0, 1, 2, 4, 5, 255)
			if length(d, 5) {
				d[5] = byte(n)
			}
			return append(d, noise(pick(draw, 0, 3, 3*n), draw)...)
		})
	case "sampling":
		edit(frames, func(d []byte) []byte {
			for at := 7; at < len(d); at += 3 {
				d[at] = byte(pick(draw, 0x00, 0x11, 0x14, 0x41, 0x44, 0xff, 0x12))
			}
			return d
		})
	case "frame type":
		for i, s := range list {
			if strings.IndexByte(frames, s.marker) >= 0 {
				list[i].marker = byte(pick(draw, 0xc1, 0xc2, 0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcf))
			}
		}
	case "tables", "Huffman codes":
		edit(pick(draw, tables, codes), func(d []byte) []byte {
			return pick(draw, flip(d, draw), cut(d, draw), bytes.Repeat([]byte{byte(pick(draw, 0, 0xff))}, len(d)))
		})
	case "no tables":
		var kept []segment
		for _, s := range list {
			if draw.IntN(3) > 0 {
				kept = append(kept, s)
			}
		}
		list = kept
	case "EXIF":
		list = append([]segment{{0xe1, exif(draw)}}, list...)
	case "many segments":
		for range pick(draw, 100, 5000) {
			list = append(list, segment{byte(0xe0 + draw.IntN(16)), noise(draw.IntN(20), draw)})
		}
	case "comments":
		for range pick(draw, 1, 30) {
			list = append([]segment{{0xfe, noise(65000, draw)}}, list...)
		}
	case "Adobe":
		list = append(list, segment{0xee, append([]byte("Adobe\x00\x64\x00\x00\x00\x00"), byte(draw.IntN(256)))})
	case "restart":
		list = append(list, segment{0xdd, pick(draw, []byte{0, 1}, []byte{0xff, 0xff}, []byte{0}, nil)})
	case "scans":
		rest = scans(list, draw)
	case "lengths":
		data := join(list, rest)
		for range 1 + draw.IntN(3) {
			at := draw.IntN(min(len(data)-2, 700))
			if i := bytes.IndexByte(data[at:len(data)-4], 0xff); i >= 0 {
				binary.BigEndian.PutUint16(data[at+i+2:], uint16(pick(draw, 0, 1, 2, 3, 65535, draw.IntN(1<<16))))
			}
		}
		return Made{"JPEG, lengths", data}
	case "no end":
		rest = append(bytes.TrimSuffix(rest, []byte{0xff, 0xd9}), bytes.Repeat([]byte{0}, pick(draw, 0, 1<<20))...)
	case "twice":
		rest = append(append(append([]byte(nil), rest...), join(list, rest)...), noise(1000, draw)...)
	case "thumbnail":
		jfif := append([]byte("JFIF\x00\x01\x02\x00\x00\x01\x00\x01"), byte(draw.IntN(256)), byte(draw.IntN(256)))
		list = append([]segment{{0xe0, jfif}}, list...)
	case "profile":
		for i := range 3 {
			list = append(list, segment{0xe2, append([]byte("ICC_PROFILE\x00"), append([]byte{byte(pick(draw, 0, i,
				255)),
				byte(pick(draw, 0, 3, 255))}, noise(500, draw)...)...)})
		}
	}
	return Made{"JPEG, " + kind, join(list, rest)}
}

// scans repeats the scan of a progressive frame, each of which costs a pass over a large picture.
func scans(list []segment, draw *rand.Rand) []byte {
	for i, s := range list {
		if s.marker == 0xc0 && len(s.data) > 4 {
			d := append([]byte(nil), s.data...)
			binary.BigEndian.PutUint16(d[1:], uint16(pick(draw, 64, 4000, 8000)))
			binary.BigEndian.PutUint16(d[3:], uint16(pick(draw, 64, 4000, 8000)))
			list[i] = segment{0xc2, d}
		}
	}
	scan := []byte{0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, byte(pick(draw, 0, 0x10)), 0}
	return append(bytes.Repeat(scan, pick(draw, 10, 400, 600, 5000)), 0xff, 0xd9)
}

// smallJPEG is a picture of few pixels; every other one is grey.
func smallJPEG(draw *rand.Rand) []byte {
	var out bytes.Buffer
	bounds := image.Rect(0, 0, 1+draw.IntN(70), 1+draw.IntN(70))
	var img image.Image = image.NewGray(bounds)
	if draw.IntN(2) == 0 {
		rgba := image.NewRGBA(bounds)
		copy(rgba.Pix, noise(len(rgba.Pix), draw))
		img = rgba
	}
	if err := jpeg.Encode(&out, img, &jpeg.Options{Quality: 1 + draw.IntN(100)}); err != nil {
		panic(err) // into memory
	}
	return out.Bytes()
}

// exif is a segment whose directories are wrong: endless, huge, or beyond the end.
func exif(draw *rand.Rand) []byte {
	order := binary.ByteOrder(binary.LittleEndian)
	out := []byte("Exif\x00\x00II*\x00\x08\x00\x00\x00")
	n := pick(draw, 1, 100, 0xffff)
	head := make([]byte, 2)
	order.PutUint16(head, uint16(n))
	out = append(out, head...)
	for range min(n, 200) {
		entry := make([]byte, 12) // of the orientation, or of another directory
		order.PutUint16(entry, uint16(pick(draw, 0x0112, 0x8769, 0x8825, 0xa005, draw.IntN(1<<16))))
		order.PutUint16(entry[2:], uint16(draw.IntN(14)))
		order.PutUint32(entry[4:], uint32(pick(draw, 0, 1, 1<<31, 0xffffffff)))
		order.PutUint32(entry[8:], uint32(pick(draw, 8, 0, 0xffffffff, draw.IntN(2000)))) // 8: itself
		out = append(out, entry...)
	}
	return append(out, 8, 0, 0, 0) // the next directory is this one
}

// A chunk is a part of a PNG file.
type chunk struct {
	name string
	data []byte
}

func chunksOf(list []chunk) []byte {
	out := []byte("\x89PNG\r\n\x1a\n")
	for _, c := range list {
		out = binary.BigEndian.AppendUint32(out, uint32(len(c.data)))
		body := append([]byte(c.name), c.data...)
		out = append(out, body...)
		out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(body))
	}
	return out
}

func header(width, height int, depth, colour, interlace byte) chunk {
	d := binary.BigEndian.AppendUint32(nil, uint32(width))
	d = binary.BigEndian.AppendUint32(d, uint32(height))
	return chunk{"IHDR", append(d, depth, colour, 0, 0, interlace)}
}

// deflated returns n bytes of one value, compressed: a thousandth of them.
func deflated(n int, value byte) []byte {
	var out bytes.Buffer
	w, err := zlib.NewWriterLevel(&out, zlib.BestSpeed)
	if err != nil {
		panic(err) // the level is one
	}
	block := bytes.Repeat([]byte{value}, 1<<16)
	for ; n > 0; n -= len(block) {
		if _, err := w.Write(block[:min(n, len(block))]); err != nil {
			panic(err) // into memory
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// pngOf makes a PNG file whose chunks are hostile.
func pngOf(draw *rand.Rand) Made {
	end := chunk{"IEND", nil}
	kind := pick(draw, "bits", "cut", "size", "types", "bomb", "bomb", "bomb in text", "palette", "order", "checksum",
		"lengths",
		"data", "many chunks", "animation")
	switch kind {
	case "bits", "cut", "checksum":
		data := goodPNG(draw)
		switch kind {
		case "cut":
			data = cut(data, draw)
		case "bits":
			data = flip(data, draw)
		default:
			data[29+draw.IntN(4)] ^= 1 // of the header
		}
		return Made{"PNG, " + kind, data}
	case "size":
		sizes := []int{0, 1, 8192, 65536, 1 << 20, 1<<31 - 1, 1 << 31, 1<<32 - 1}
		return Made{"PNG, size", chunksOf([]chunk{header(sizes[draw.IntN(len(sizes))], sizes[draw.IntN(len(sizes))],
			8, 2, 0), {"IDAT", deflated(1000, 0)}, end})}
	case "types":
		return Made{"PNG, types", chunksOf([]chunk{header(8, 8, byte(draw.IntN(33)), byte(draw.IntN(8)),
			byte(draw.IntN(3))),
			{"IDAT", deflated(8*65, 0)}, end})}
	case "bomb": // as many pixels as are accepted, of up to 8 bytes
		bytesOfPixel := map[byte]int{0: 1, 2: 3, 4: 2, 6: 4}
		colour := pick[byte](draw, 0, 2, 4, 6)
		depth := pick[byte](draw, 8, 16)
		width, height := pick(draw, 8192, 8192, 4096, 1<<20), 8192
		if width > 8192 {
			height = 64
		}
		n := height * (1 + width*bytesOfPixel[colour]*int(depth)/8)
		return Made{"PNG, bomb", chunksOf([]chunk{header(width, height, depth, colour, pick[byte](draw, 0, 0, 1)),
			{"IDAT", deflated(n, 0)}, end})}
	case "bomb in text":
		list := []chunk{header(8, 8, 8, 2, 0)}
		bomb := append([]byte("k\x00\x00"), deflated(50<<20, 0)...)
		for range pick(draw, 1, 20) {
			list = append(list, chunk{pick(draw, "zTXt", "iTXt", "iCCP"), bomb})
		}
		return Made{"PNG, bomb in text", chunksOf(append(list, chunk{"IDAT", deflated(8*25, 0)}, end))}
	case "palette":
		return Made{"PNG, palette", chunksOf([]chunk{header(16, 16, pick[byte](draw, 1, 2, 4, 8), 3, 0),
			{"PLTE", noise(pick(draw, 0, 1, 3, 768, 900), draw)}, {"tRNS", noise(draw.IntN(300), draw)},
			{"IDAT", deflated(16*17, byte(draw.IntN(256)))}, end})}
	case "order":
		list := []chunk{header(8, 8, 8, 3, 0), {"PLTE", noise(9, draw)}, {"IDAT", deflated(72, 1)}, {"IDAT", nil},
			header(4096, 4096, 16, 6, 0), {"acTL", nil}, end}
		draw.Shuffle(len(list), func(i, k int) { list[i], list[k] = list[k], list[i] })
		return Made{"PNG, order", chunksOf(list)}
	case "lengths":
		data := goodPNG(draw)
		binary.BigEndian.PutUint32(data[33:], uint32(pick(draw, 0, 1, 1<<31-1, 1<<31, 1<<32-1)))
		return Made{"PNG, lengths", data}
	case "data":
		return Made{"PNG, data", chunksOf([]chunk{header(64, 64, 8, 6, pick[byte](draw, 0, 1)),
			{"IDAT", pick(draw, noise(500, draw), deflated(10, 0), deflated(1<<20, byte(draw.IntN(256))), nil)}, end})}
	case "many chunks":
		list := []chunk{header(64, 64, 8, 0, 0)}
		for _, b := range deflated(64*65, 0) {
			list = append(list, chunk{"IDAT", []byte{b}}, chunk{"IDAT", nil})
		}
		for range 20_000 {
			list = append(list, chunk{"tEXt", []byte("a\x00b")})
		}
		return Made{"PNG, many chunks", chunksOf(append(list, end))}
	}
	return Made{"PNG, animation", chunksOf([]chunk{header(8, 8, 8, 2, 0), {"acTL", []byte{0xff, 0xff, 0xff, 0xff, 0,
		0, 0, 0}},
		{"fcTL", noise(26, draw)}, {"IDAT", deflated(8*25, 0)}, {"fdAT", noise(50, draw)}, end})}
}

// goodPNG is a picture of one of Go's types.
func goodPNG(draw *rand.Rand) []byte {
	bounds := image.Rect(0, 0, 1+draw.IntN(60), 1+draw.IntN(60))
	img := pick[image.Image](draw, image.NewGray(bounds), image.NewNRGBA(bounds), image.NewNRGBA64(bounds),
		image.NewGray16(bounds),
		image.NewPaletted(bounds, color.Palette{color.Black, color.White, color.Transparent}))
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		panic(err) // into memory
	}
	return out.Bytes()
}

// otherFile is something else than JPEG or PNG, or begins like one.
func otherFile(base []byte, draw *rand.Rand) Made {
	heads := map[string]string{
		"WebP": "RIFF\xff\xff\xff\xffWEBPVP8X\x0a\x00\x00\x00\x10\x00\x00\x00\xff\xff\xff\xff\xff\xff",
		"GIF":  "GIF89a\xff\xff\xff\xff\xf7\x00\x00",
		"BMP":  "BM\xff\xff\xff\xff\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00\xff\xff\xff\x7f\xff\xff\xff\x7f",
		"TIFF": "II*\x00\x08\x00\x00\x00\xff\xff", "HEIC": "\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic",
		"AVIF": "\x00\x00\x00\x1cftypavif", "JPEG 2000": "\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a", "PDF": "%PDF-1.7\n",
		"SVG": `<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>`,
		"ZIP": "PK\x03\x04", "gzip": "\x1f\x8b\x08\x00", "empty": "", "half a JPEG marker": "\xff",
		"JPEG marker": "\xff\xd8",
		"JPEG end":    "\xff\xd8\xff\xd9", "PNG head": "\x89PNG\r\n\x1a\n", "PNM": "P6 999999999 999999999 255\n",
		"ICO": "\x00\x00\x01\x00\xff\xff",
	}
	names := []string{"WebP", "GIF", "BMP", "TIFF", "HEIC", "AVIF", "JPEG 2000", "PDF", "SVG", "ZIP", "gzip", "empty",
		"half a JPEG marker", "JPEG marker", "JPEG end", "PNG head", "PNM", "ICO"}
	name := names[draw.IntN(len(names))]
	data := []byte(heads[name])
	if name != "empty" {
		data = append(data, pick(draw, nil, noise(draw.IntN(2000), draw), base, make([]byte, 1<<20))...)
	}
	return Made{"other: " + name, data}
}
