package delivery

import (
	"encoding"
	"reflect"
	"testing"
	"time"
)

func TestUnits(t *testing.T) {
	for _, c := range []struct {
		text string
		want any
		back string // how it is written again; "" is the same
	}{
		{"90s", Duration(90 * time.Second), "1m30s"},
		{"30m", Duration(30 * time.Minute), ""},
		{"24h", Duration(24 * time.Hour), ""},
		{"7d", Duration(7 * 24 * time.Hour), "168h"},
		{"1h30m", Duration(90 * time.Minute), ""},
		{"500ms", Duration(500 * time.Millisecond), ""},
		{"0s", Duration(0), ""},
		{"10%", Share(0.1), ""},
		{"2.5%", Share(0.025), ""},
		{"100%", Share(1), ""},
		{"0%", Share(0), ""},
		{"1", Wave{Devices: 1}, ""},
		{"25%", Wave{Share: 0.25}, ""},
		{"120MB", Bytes(120e6), ""},
		{"64MiB", Bytes(64 << 20), ""},
		{"4GiB", Bytes(4 << 30), ""},
		{"1.5GB", Bytes(15e8), ""},
		{"0B", Bytes(0), ""},
		{"1234567B", Bytes(1234567), "1234.567KB"},
	} {
		v := reflect.New(reflect.TypeOf(c.want))
		if err := v.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(c.text)); err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if got := v.Elem().Interface(); got != c.want {
			t.Errorf("%q is %v, want %v", c.text, got, c.want)
		}
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
		}
		want := c.back
		if want == "" {
			want = c.text
		}
		if string(text) != want {
			t.Errorf("%q is written as %q, want %q", c.text, text, want)
		}
		again := reflect.New(reflect.TypeOf(c.want))
		if err := again.Interface().(encoding.TextUnmarshaler).UnmarshalText(text); err != nil ||
			again.Elem().Interface() != c.want {
			t.Errorf("%q, written as %q, is read as %v, %v", c.text, text, again.Elem().Interface(), err)
		}
	}
}

func TestUnitsRefuse(t *testing.T) {
	for typ, texts := range map[reflect.Type][]string{
		reflect.TypeFor[Duration](): {"", "5", "0", "soon", "-5m", "+5m", "99999999d", "5 m", "1d12h", "1e3s", ".5h",
			"1.h", "1h.5m", "5\u03bcs"},
		reflect.TypeFor[Share](): {"", "10", "0.1", "101%", "-1%", "-0.1%", "nan%", "inf%", "0x1p3%", "1_0%", "1e1%",
			"+5%", "%", " 5%"},
		reflect.TypeFor[Wave]():  {"", "0", "-1", "1.5", "0%", "101%", "all", "9999999", "+x"},
		reflect.TypeFor[Bytes](): {"", "120", "MB", "-1MB", "nanMB", "1e9B", "1 MB", "9999999GiB", "0x1MB"},
	} {
		for _, text := range texts {
			v := reflect.New(typ)
			if err := v.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err == nil {
				t.Errorf("%s reads %q as %v", typ, text, v.Elem().Interface())
			}
		}
	}
}
