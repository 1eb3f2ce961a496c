package evidence

import (
	"bytes"
	"hash/maphash"
	"reflect"
	"time"
	"unsafe"
)

// A sharer makes equal parts of decoded statements share their memory: digests, names, class lists and the verdicts in
// release statements are in many of them. Without it the statements take three times the memory. Decoded statements
// must not be changed.
//
// It works from the leaves up. Once the parts of two values share their memory, the values are equal exactly if their
// bytes in memory are, pointers included. So one table of blocks of memory is enough for all types.
type sharer struct {
	seed    maphash.Seed
	strings map[string]string
	blocks  map[uint64]block
	maps    map[uint64]reflect.Value
}

// A block is the memory of a slice's elements or of what a pointer points to.
type block struct {
	of     reflect.Type
	value  reflect.Value // the slice or pointer
	memory []byte
}

// maxShared bounds the tables, which are emptied then. What is alike stands close together in the list of statements.
const maxShared = 1 << 16

func newSharer() *sharer {
	s := &sharer{seed: maphash.MakeSeed()}
	s.clear()
	return s
}

func (s *sharer) clear() {
	s.strings, s.blocks, s.maps = map[string]string{}, map[uint64]block{}, map[uint64]reflect.Value{}
}

// share changes what pointer points to.
func (s *sharer) share(pointer any) {
	if len(s.strings)+len(s.blocks)+len(s.maps) > maxShared {
		s.clear()
	}
	s.walk(reflect.ValueOf(pointer).Elem())
}

var timeType = reflect.TypeFor[time.Time]()

func (s *sharer) walk(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if v.Len() > 0 {
			v.SetString(s.text(v.String()))
		}
	case reflect.Struct:
		if v.Type() == timeType {
			return
		}
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				s.walk(f)
			}
		}
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		s.walk(v.Elem())
		v.Set(s.block(v, memory(v.UnsafePointer(), v.Elem().Type().Size())))
	case reflect.Slice:
		if v.Len() == 0 {
			return
		}
		if v.Type().Elem().Kind() != reflect.Uint8 {
			for i := range v.Len() {
				s.walk(v.Index(i))
			}
		}
		if v.Cap() > v.Len() { // of the decoder, which doubles a slice that grows
			exact := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(exact, v)
			v.Set(exact)
		}
		v.Set(s.block(v, memory(v.UnsafePointer(), v.Type().Elem().Size()*uintptr(v.Len()))))
	case reflect.Map:
		s.entries(v)
	}
}

func (s *sharer) text(is string) string {
	if known, ok := s.strings[is]; ok {
		return known
	}
	s.strings[is] = is
	return is
}

// block returns the first slice or pointer with this memory.
func (s *sharer) block(v reflect.Value, memory []byte) reflect.Value {
	key := maphash.Bytes(s.seed, memory)
	known, ok := s.blocks[key]
	if ok && known.of == v.Type() && bytes.Equal(known.memory, memory) {
		return known.value
	}
	if !ok {
		held := reflect.New(v.Type()).Elem() // v itself may be a part of a slice that is dropped
		held.Set(v)
		s.blocks[key] = block{v.Type(), held, memory}
	}
	return v
}

// entries shares the keys and values of a map, and the map.
func (s *sharer) entries(v reflect.Value) {
	if v.Len() == 0 {
		return
	}
	elem := v.Type().Elem()
	value := reflect.New(elem).Elem()
	key := reflect.New(v.Type().Key()).Elem()
	now := reflect.MakeMapWithSize(v.Type(), v.Len())
	var sum uint64 // of hashes of the entries, whose order is not fixed
	for it := v.MapRange(); it.Next(); {
		key.SetIterKey(it)
		value.SetIterValue(it)
		s.walk(key)
		s.walk(value)
		now.SetMapIndex(key, value)
		var h maphash.Hash
		h.SetSeed(s.seed)
		h.Write(memory(key.Addr().UnsafePointer(), key.Type().Size()))
		h.Write(memory(value.Addr().UnsafePointer(), elem.Size()))
		sum += h.Sum64()
	}
	sum ^= maphash.String(s.seed, v.Type().String())
	known, ok := s.maps[sum]
	if ok && known.Type() == v.Type() && sameEntries(known, now) {
		v.Set(known)
		return
	}
	if !ok {
		s.maps[sum] = now
	}
	v.Set(now)
}

// sameEntries compares two maps whose keys and values share their memory.
func sameEntries(a, b reflect.Value) bool {
	if a.Len() != b.Len() {
		return false
	}
	va, vb := reflect.New(a.Type().Elem()).Elem(), reflect.New(a.Type().Elem()).Elem()
	for it := a.MapRange(); it.Next(); {
		other := b.MapIndex(it.Key())
		if !other.IsValid() {
			return false
		}
		va.SetIterValue(it)
		vb.Set(other)
		size := va.Type().Size()
		if !bytes.Equal(memory(va.Addr().UnsafePointer(), size), memory(vb.Addr().UnsafePointer(), size)) {
			return false
		}
	}
	return true
}

func memory(at unsafe.Pointer, size uintptr) []byte { return unsafe.Slice((*byte)(at), size) }
