package mutate

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
)

// A Target is what a server serves.
type Target struct {
	Model, Version string
	Input          string
	Boxes, Logits  string
	Height, Width  int
	Pictures       [][]byte // JPEG files
}

// Sent is what is written to a connection.
type Sent struct {
	Made
	// Whole says that it begins with the head of a request that an HTTP server can read, so that an answer has to come.
	Whole bool
	// Held says that the connection stays open without the rest, until the server ends it.
	Held bool
}

// Request makes a hostile HTTP request: the i-th of the seed.
func Request(t Target, seed uint64, i int) Sent {
	draw := Source(seed, i)
	d := drawing{t, draw}
	switch i % 6 {
	case 0:
		return d.json()
	case 1:
		return d.binary()
	case 2:
		return d.roboflow()
	case 3:
		return d.head()
	case 4:
		return d.body()
	}
	return d.raw()
}

type drawing struct {
	Target
	*rand.Rand
}

func (d drawing) picture() []byte { return d.Pictures[d.IntN(len(d.Pictures))] }

// post is a request with a body of the right length.
func post(path, contentType string, body []byte, headers ...string) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", path)
	if contentType != "" {
		fmt.Fprintf(&out, "Content-Type: %s\r\n", contentType)
	}
	for _, h := range headers {
		out.WriteString(h + "\r\n")
	}
	fmt.Fprintf(&out, "Content-Length: %d\r\n\r\n", len(body))
	out.Write(body)
	return out.Bytes()
}

func (d drawing) infer() string { return "/v2/models/" + d.Model + "/infer" }

// shape is the input's for n images.
func (d drawing) shape(n int) string { return fmt.Sprintf("[%d,3,%d,%d]", n, d.Height, d.Width) }

// junk are values that JSON has and the API does not want there.
func (d drawing) junk() string {
	return pick(d.Rand, "null", "true", `""`, "[]", "{}", "-1", "0", "1e999", "-0", "9223372036854775808", "1.5",
		`"\ud800"`,
		`"\u0000"`, strings.Repeat("[", 5000), strings.Repeat(`{"a":`, 5000), `"`+strings.Repeat("x", 100_000)+`"`,
		"NaN",
		"[1,2", "01", "'a'", "\xff", "18446744073709551617", "[[[[[[[[]]]]]]]]", "1e-400", "0x10")
}

// json is a request of the protocol V2 whose JSON is wrong.
func (d drawing) json() Sent {
	data := "[" + strings.Repeat("0.5,", 20) + "1]"
	fields := map[string]string{"name": `"` + d.Input + `"`, "datatype": `"FP32"`, "shape": d.shape(1), "data": data}
	order := []string{"name", "datatype", "shape", "data"}
	outer := ""
	kind := pick(d.Rand, "a value", "names twice", "shape", "depth", "data", "other inputs", "outputs", "parameters",
		"text",
		"bits", "cut", "order")
	switch kind {
	case "a value":
		fields[order[d.IntN(4)]] = d.junk()
	case "names twice":
		order = append(order, order[d.IntN(4)])
	case "shape":
		fields["shape"] = pick(d.Rand, "[]", "[1]", "[0,3,1,1]", "[-1,3,-1,-1]", "[9223372036854775807,3,2,2]",
			"[4294967296,4294967296,1,1]", d.shape(1<<30), d.shape(65), "[1,3,1e3,1e3]", "["+strings.Repeat("1,",
				100_000)+"1]")
	case "depth":
		fields["data"] = strings.Repeat("[", pick(d.Rand, 5, 100, 100_000)) + "1"
	case "data":
		n := 3 * d.Height * d.Width
		fields["data"] = pick(d.Rand, "["+strings.Repeat("1,", n-2)+"1]", "["+strings.Repeat("1,", n)+"1]",
			"["+strings.Repeat("1e38,", n-1)+"1e39]", "["+strings.Repeat("1e999,", n-1)+"1]",
			"["+strings.Repeat("[1],", 50)+"1]",
			"["+strings.Repeat(`"1",`, n-1)+"1]", "["+strings.Repeat("null,", n-1)+"1]", "["+strings.Repeat("1,",
				5_000_000)+"1]",
			"["+strings.Repeat("-3.4e38,", n-1)+"3.4e38]")
	case "other inputs":
		outer = `,"inputs":` + pick(d.Rand, "[]", d.junk(),
			`[{"name":"other","shape":[1],"datatype":"BYTES","data":["a"]}]`)
	case "outputs":
		outer = `,"outputs":` + pick(d.Rand, d.junk(), `[{"name":"nothing"}]`,
			`[`+strings.Repeat(`{"name":"`+d.Boxes+`"},`, 1000)+
				`{"name":"`+d.Boxes+`"}]`, `[{"name":"`+d.Boxes+`","parameters":{"binary_data":`+d.junk()+`}}]`)
	case "parameters":
		outer = `,"parameters":` + pick(d.Rand, d.junk(), `{"timeout":`+d.junk()+`}`, `{"timeout":1}`,
			`{"sequence_id":1}`,
			`{"binary_data_output":`+d.junk()+`}`, `{"timeout":-1}`, `{"timeout":9e18}`)
	case "text":
		outer = `,"id":"` + strings.Repeat("\\u2028", 100+d.IntN(500)) + `"`
	case "order":
		d.Shuffle(4, func(i, k int) { order[i], order[k] = order[k], order[i] })
	}
	var text strings.Builder
	text.WriteString(`{"inputs":[{`)
	for i, name := range order {
		if i > 0 {
			text.WriteString(",")
		}
		text.WriteString(`"` + name + `":` + fields[name])
	}
	text.WriteString(`}]` + outer + `}`)
	body := []byte(text.String())
	switch kind {
	case "bits":
		body = flip(body, d.Rand)
	case "cut":
		body = cut(body, d.Rand)
	}
	return Sent{Made{"V2 JSON, " + kind, post(d.infer(), "application/json", body)}, true, false}
}

// binary is a request of the protocol V2 whose binary tensor does not fit.
func (d drawing) binary() Sent {
	n := int64(4 * 3 * d.Height * d.Width)
	size, shape := fmt.Sprint(n), d.shape(1)
	data := make([]byte, n)
	kind := pick(d.Rand, "size", "size and shape", "header", "data", "values", "twice", "no type")
	var length string
	switch kind {
	case "size":
		size = pick(d.Rand, "0", "-1", "1", "9223372036854775807", "18446744073709551616", "1e3", fmt.Sprint(n+4),
			fmt.Sprint(n-1))
	case "size and shape":
		images := pick(d.Rand, int64(2), 64, 65, 1<<31, 1<<40, 1<<61)
		size, shape = fmt.Sprint(images*n), fmt.Sprintf("[%d,3,%d,%d]", images, d.Height, d.Width)
	case "header":
		length = pick(d.Rand, "0", "-1", "1", "99999999999999999999", "0x10", "", "1048577", "7", " 12", "+5")
	case "data":
		data = pick(d.Rand, nil, data[:n-1], append(data, 0), make([]byte, 1<<22))
	case "values":
		for i := range data {
			data[i] = byte(pick(d.Rand, 0xff, 0x7f, d.IntN(256)))
		}
		if d.IntN(2) == 0 { // finite, but as large as there are
			for i := 0; i < len(data); i += 4 {
				binary.LittleEndian.PutUint32(data[i:], pick[uint32](d.Rand, 0x7f7fffff, 0xff7fffff, 1, 0x80000001))
			}
		}
	}
	parameters := `"parameters":{"binary_data_size":` + size + `}`
	switch kind {
	case "twice":
		parameters = `"parameters":{"binary_data_size":` + size + `,"binary_data_size":0},"data":[1]`
	case "no type":
		parameters = `"datatype":"INT64",` + parameters
	}
	text := `{"inputs":[{"name":"` + d.Input + `","datatype":"FP32","shape":` + shape + `,` + parameters + `}]}`
	if kind != "header" {
		length = fmt.Sprint(len(text))
	}
	return Sent{Made{"V2 binary, " + kind, post(d.infer(), "application/octet-stream", append([]byte(text), data...),
		"Inference-Header-Content-Length: "+length)}, true, false}
}

// roboflow is a request of Roboflow's clients that is wrong.
func (d drawing) roboflow() Sent {
	image := base64.StdEncoding.EncodeToString(d.picture())
	one := `{"type":"base64","value":"` + image + `"}`
	kind := pick(d.Rand, "image", "many images", "a value", "URL", "text of the picture", "form", "query", "bits",
		"cut")
	body := func(image, more string) []byte {
		return []byte(`{"model_id":"` + d.Model + "/" + d.Version + `","image":` + image + more + `}`)
	}
	path, contentType := "/infer/object_detection", "application/json"
	var data []byte
	switch kind {
	case "image":
		data = body(pick(d.Rand, d.junk(), `{"type":"base64","value":`+d.junk()+`}`,
			`{"type":"numpy","value":"gASVCAAA"}`,
			`{"type":"base64","value":"`+image[:len(image)/2]+`="}`, `{"type":"base64","value":"!!!!"}`), "")
	case "many images":
		data = body("["+strings.Repeat(`{"type":"base64","value":"/9j/"},`, pick(d.Rand, 3, 70, 20_000))+one+"]", "")
	case "a value":
		data = body(one, `,"`+pick(d.Rand, "confidence", "iou_threshold", "class_filter", "max_detections", "model_id",
			"visualize_predictions", "image", "api_key")+`":`+d.junk())
	case "URL":
		data = body(`{"type":"url","value":"`+pick(d.Rand, "http://127.0.0.1:1/", "file:///etc/passwd",
			"http://169.254.169.254/latest/meta-data/", "gopher://x")+`"}`, "")
	case "text of the picture":
		path, contentType = "/"+d.Model+"/"+d.Version, "application/x-www-form-urlencoded"
		data = pick(d.Rand, []byte(image[:len(image)/3]), []byte("data:image/jpeg;base64,"+image), []byte("%%%"),
			bytes.Repeat([]byte("A"), 1<<20), []byte(image+"===="))
	case "form":
		path, contentType = "/"+d.Model+"/"+d.Version, "multipart/form-data; boundary="+pick(d.Rand, "b", "",
			strings.Repeat("b", 90), `"b`)
		part := "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../../x\"\r\n\r\n" +
			string(d.picture()) + "\r\n"
		data = []byte(pick(d.Rand, part, part+"--b--\r\n", strings.Repeat("--b\r\n\r\n\r\n", 20_000)+"--b--",
			"--b\r\n"+strings.Repeat("X: y\r\n", 5000)+"\r\nz\r\n--b--", "--b--", part+part+"--b--\r\n"))
	case "query":
		path = "/" + d.Model + "/" + d.Version + "?" + pick(d.Rand, "confidence=nan", "confidence=1e999",
			"confidence=40&confidence=41",
			"classes="+strings.Repeat("a,", 5000), "image=http://127.0.0.1/", "overlap=-5", "%zz=1", "format=image",
			"api_key=%00",
			strings.Repeat("a=b&", 4000), "max_detections=99999999999999999999")
		contentType, data = "application/x-www-form-urlencoded", []byte(image)
	default:
		data = body(one, "")
		if kind == "bits" {
			data = flip(data, d.Rand)
		} else {
			data = cut(data, d.Rand)
		}
	}
	return Sent{Made{"Roboflow, " + kind, post(path, contentType, data)}, true, false}
}

// head is a request with a wrong head.
func (d drawing) head() Sent {
	kind := pick(d.Rand, "method", "path", "version", "many headers", "large header", "names", "content type",
		"encoding",
		"expectation", "range", "query", "no host", "folded", "two lengths", "upgrade")
	body := d.picture()
	request := func(line string, headers ...string) []byte {
		return append([]byte(line+"\r\n"+strings.Join(headers, "\r\n")+"\r\nConnection: close\r\nContent-Length: "+
			fmt.Sprint(len(body))+"\r\n\r\n"), body...)
	}
	const line, host = "POST /v1/detect HTTP/1.1", "Host: x"
	var data []byte
	whole := true
	switch kind {
	case "method":
		data = request(pick(d.Rand, "GET", "PUT", "DELETE", "TRACE", "CONNECT", "post", "PRI", strings.Repeat("M",
			5000), "PO ST",
			"OPTIONS")+" "+pick(d.Rand, "/v1/detect", "/readyz", "*", d.infer())+" HTTP/1.1", host)
		whole = false // CONNECT and PRI have forms of their own
	case "path":
		data = request("POST "+pick(d.Rand, "/v1/../v1/detect", "//v1//detect", "/v1/detect/", "/v1/detect%00",
			"/v2/models/../infer",
			"/v2/models/%2e%2e/infer", "/"+strings.Repeat("a/", 3000), "/v2/models/"+strings.Repeat("x", 8000)+"/infer",
			"http://evil/v1/detect", "/%ff/%fe", "/v2/models/"+d.Model+"/versions/9/infer", "/a/b", "/v1/detect#x",
			"/\xf0\x9f\x98\x80/1")+
			" HTTP/1.1", host)
	case "version":
		data = request("POST /v1/detect "+pick(d.Rand, "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/9.9", "HTTP/1.1 x",
			"HTTPS/1.1", ""), host)
		whole = false
	case "many headers":
		list := []string{host}
		for i := range pick(d.Rand, 100, 500, 5000) {
			list = append(list, fmt.Sprintf("X-%d: %d", i, i))
		}
		data = request(line, list...)
		whole = false // too many are refused while more is sent, which can lose the answer
	case "large header":
		data = request(line, host, "X: "+strings.Repeat("y", pick(d.Rand, 8<<10, 16<<10, 64<<10, 1<<20)))
		whole = false
	case "names":
		data = request(line, host, pick(d.Rand, "X Y: z", ": z", "X\x00: z", "no colon", "X: \x01", "X : z", "\xff: z"))
		whole = false
	case "content type":
		data = request(line, host, "Content-Type: "+pick(d.Rand, "", "text/html", "multipart/form-data",
			"image/webp; x=\"",
			strings.Repeat("a/b;", 1000), "application/json", "\xff/\xfe"))
	case "encoding":
		data = request(line, host, "Content-Encoding: "+pick(d.Rand, "gzip", "br", "deflate, gzip", "identity",
			"zstd", "x"))
	case "expectation":
		data = request(line, host, "Expect: "+pick(d.Rand, "100-continue", "200-ok", "100-continue, 100-continue"))
	case "range":
		data = request("GET /openapi.json HTTP/1.1", host, "Range: bytes="+pick(d.Rand, "0-0,", "5-1",
			strings.Repeat("0-,", 1300)),
			"If-None-Match: *")
	case "query":
		data = request("POST /v1/detect?"+pick(d.Rand, "confidence=nan", "confidence=-1", "confidence=0x1p-2",
			"confidence=1&confidence=0",
			"classes=nothing", "classes=", "max_detections=0", "max_detections=1e9", "unknown=1", "%", "a;b",
			strings.Repeat("classes=a&", 1000))+
			" HTTP/1.1", host)
	case "no host":
		data = request(line, pick(d.Rand, "X: y", "Host: a\r\nHost: b", "Host: a b", "Host: "+strings.Repeat("h",
			5000)))
		whole = false
	case "folded":
		data = request(line, host, "X: a\r\n b\r\n\tc")
		whole = false
	case "two lengths":
		data = request(line, host, pick(d.Rand, "Content-Length: 1", "Content-Length: -1",
			"Content-Length: 99999999999999999999",
			"Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: x"))
		whole = false
	case "upgrade":
		data = request(line, host, "Upgrade: "+pick(d.Rand, "h2c", "websocket"),
			"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
	}
	return Sent{Made{"head, " + kind, data}, whole, false}
}

// body is a request whose body is not as long as its head says, or is sent in odd parts.
func (d drawing) body() Sent {
	picture := d.picture()
	path := pick(d.Rand, "/v1/detect", d.infer(), "/infer/object_detection", "/"+d.Model+"/"+d.Version)
	start := "POST " + path + " HTTP/1.1\r\nHost: x\r\n"
	kind := pick(d.Rand, "too short", "too long", "huge length", "chunks", "chunk lies", "trailers", "nothing",
		"many", "held")
	text := ""
	switch kind {
	case "too short":
		text = fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", start, len(picture)+1+d.IntN(5000), picture)
	case "too long":
		text = fmt.Sprintf("%sConnection: close\r\nContent-Length: %d\r\n\r\n%s", start, d.IntN(len(picture)), picture)
	case "huge length":
		text = fmt.Sprintf("%sContent-Length: %s\r\n\r\n%s", start, pick(d.Rand, "67108864", "67108865",
			"9223372036854775807",
			"536870912"), picture)
	case "chunks":
		var b strings.Builder
		for at := 0; at < len(picture); {
			n := min(1+d.IntN(2000), len(picture)-at)
			fmt.Fprintf(&b, "%x;ext=%s\r\n%s\r\n", n, strings.Repeat("e", d.IntN(30)), picture[at:at+n])
			at += n
		}
		text = start + "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + b.String() + "0\r\n\r\n"
	case "chunk lies":
		text = start + "Transfer-Encoding: chunked\r\n\r\n" + pick(d.Rand, "ffffffffffffffff\r\n",
			"7fffffffffffffff\r\nabc",
			"-1\r\n", "5\r\nab\r\n0\r\n\r\n", "zz\r\n", "4000001\r\n"+string(picture), strings.Repeat("1\r\na\r\n",
				5000),
			"0;"+strings.Repeat("x", 20_000)+"\r\n\r\n", "\r\n\r\n", strings.Repeat("1;"+strings.Repeat("x",
				4000)+"\r\na\r\n", 100))
	case "trailers":
		text = start + "Connection: close\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n" +
			strings.Repeat("X: y\r\n", pick(d.Rand, 1, 5000)) + "\r\n"
	case "nothing":
		text = start + pick(d.Rand, "Content-Length: 0\r\n", "") + "Connection: close\r\n\r\n"
	case "many": // requests on one connection
		text = strings.Repeat(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", start, 3, "abc"), 1+d.IntN(50))
	case "held":
		text = fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", start, len(picture), picture[:len(picture)/2])
		return Sent{Made{"body, held", []byte(text)}, true, d.IntN(3) == 0}
	}
	return Sent{Made{"body, " + kind, []byte(text)}, true, false}
}

// raw are bytes that may be no request at all.
func (d drawing) raw() Sent {
	good := post("/v1/detect", "image/jpeg", d.picture())
	if d.IntN(2) == 0 {
		good = post(d.infer(), "application/json",
			[]byte(`{"inputs":[{"name":"`+d.Input+`","datatype":"FP32","shape":`+d.shape(1)+
				`,"data":[1,2,3]}]}`))
	}
	head := bytes.Index(good, []byte("\r\n\r\n")) + 4
	kind := pick(d.Rand, "bits of the head", "bits", "cut", "cut in the head", "spliced", "noise", "TLS",
		"other protocol", "lines",
		"held")
	var data []byte
	held := false
	switch kind {
	case "bits of the head":
		data = append(flip(good[:head], d.Rand), good[head:]...)
	case "bits":
		data = flip(good, d.Rand)
	case "cut":
		data = cut(good, d.Rand)
	case "cut in the head":
		data = good[:d.IntN(head)]
	case "spliced":
		data = splice(good, d.Rand)
	case "noise":
		data = noise(d.IntN(5000), d.Rand)
	case "TLS":
		data = append([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), noise(500, d.Rand)...)
	case "other protocol":
		data = []byte(pick(d.Rand, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04", "SSH-2.0-x\r\n", "EHLO x\r\n",
			"*1\r\n$4\r\nPING\r\n",
			"\x00\x00\x00\x00", "GET / HTTP/1.1\n\n", "\r\n\r\n\r\n\r\n"))
	case "lines":
		data = []byte(strings.Repeat("\r\n", 5000) + string(good))
	case "held":
		data, held = good[:d.IntN(head)], d.IntN(3) == 0
	}
	return Sent{Made{"raw, " + kind, data}, false, held}
}
