package dataset

import (
	"bufio"
	"encoding/binary"
	"io"
)

// upright is the EXIF orientation of an image that viewers do not turn.
const upright = 1

// orientation returns the EXIF orientation in the header of a JPEG or PNG, 1 to 8. Without one it is upright.
func orientation(format string, file io.Reader) int {
	r := bufio.NewReader(file)
	if format == "png" {
		return orientationPNG(r)
	}
	if _, err := r.Discard(2); err != nil { // start of image
		return upright
	}
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:2]); err != nil || head[0] != 0xff {
			return upright
		}
		for head[1] == 0xff { // fill bytes
			b, err := r.ReadByte()
			if err != nil {
				return upright
			}
			head[1] = b
		}
		if head[1] == 0xda || head[1] == 0xd9 { // the pixels, or the end
			return upright
		}
		if _, err := io.ReadFull(r, head[2:]); err != nil {
			return upright
		}
		n := int(binary.BigEndian.Uint16(head[2:])) - 2
		if n < 0 {
			return upright
		}
		const exif = "Exif\x00\x00"
		if head[1] != 0xe1 || n < len(exif) {
			if _, err := r.Discard(n); err != nil {
				return upright
			}
			continue
		}
		data := make([]byte, n)
		if _, err := io.ReadFull(r, data); err != nil {
			return upright
		}
		if string(data[:len(exif)]) == exif {
			return orientationTIFF(data[len(exif):])
		}
	}
}

// orientationPNG reads the chunk eXIf.
func orientationPNG(r *bufio.Reader) int {
	const most = 1 << 20 // bytes of the chunk
	if _, err := r.Discard(8); err != nil {
		return upright
	}
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return upright
		}
		n := binary.BigEndian.Uint32(head[:])
		switch name := string(head[4:]); {
		case name == "eXIf" && n <= most:
			data := make([]byte, n)
			if _, err := io.ReadFull(r, data); err != nil {
				return upright
			}
			return orientationTIFF(data)
		case name == "IEND" || n > 1<<31-1:
			return upright
		}
		if _, err := r.Discard(int(n) + 4); err != nil {
			return upright
		}
	}
}

// orientationTIFF reads the tag Orientation of the first folder of tags.
func orientationTIFF(data []byte) int {
	if len(data) < 8 {
		return upright
	}
	var order binary.ByteOrder = binary.BigEndian
	if string(data[:2]) == "II" {
		order = binary.LittleEndian
	}
	at := uint64(order.Uint32(data[4:]))
	if at+2 > uint64(len(data)) {
		return upright
	}
	const tag, size = 0x0112, 12
	for i := range uint64(order.Uint16(data[at:])) {
		entry := at + 2 + i*size
		if entry+size > uint64(len(data)) {
			return upright
		}
		if order.Uint16(data[entry:]) != tag {
			continue
		}
		if v := int(order.Uint16(data[entry+8:])); v >= 1 && v <= 8 {
			return v
		}
		return upright
	}
	return upright
}

// turnsSide reports whether an orientation exchanges width and height.
func turnsSide(orientation int) bool { return orientation >= 5 }

// grey16 reports whether a PNG is greyscale with 16 bits a pixel.
func grey16(format string, file io.Reader) bool {
	const depth, colour = 24, 25 // in the first chunk
	var head [colour + 1]byte
	if format != "png" {
		return false
	}
	_, err := io.ReadFull(file, head[:])
	return err == nil && head[depth] == 16 && head[colour] == 0
}
