package dataset

import (
	"bytes"
	"path"
	"strings"

	"github.com/autonomos/aob/reconciler/delivery"
)

// readable are the layouts, for people.
const readable = "the layouts that can be read are in docs/datasets.md: COCO, CVAT, Label Studio, Pascal VOC and YOLO"

// Layouts that are known and not read, with what to do. The first that matches is named.
var refused = []struct {
	name  string // what it is
	do    string
	match func(name string, head []byte) bool // the base name in lower case, and the first bytes
}{
	{"CreateML annotations", "export it as COCO", func(name string, _ []byte) bool {
		return strings.Contains(name, "createml")
	}},
	{"TFRecord files", "export it as COCO", func(name string, _ []byte) bool {
		return strings.HasSuffix(name, ".tfrecord") || strings.HasSuffix(name, ".record")
	}},
	{"CrowdHuman's annotations (.odgt)", "convert them to COCO: vbox or fbox to bbox, and ignored heads to iscrowd 1",
		func(name string, _ []byte) bool { return strings.HasSuffix(name, ".odgt") }},
	{"annotations of Datumaro", "export it as COCO: datum convert -f coco_instances", func(_ string, head []byte) bool {
		return bytes.Contains(head, []byte(`"items"`)) && bytes.Contains(head, []byte(`"categories"`))
	}},
	{"annotations of labelme", "convert them to COCO with labelme's labelme2coco.py", func(name string,
		head []byte) bool {
		return strings.HasSuffix(name, ".json") && bytes.Contains(head, []byte(`"shapes"`))
	}},
	{"an export of Label Studio that is not JSON, COCO or YOLO", "export it as COCO or YOLO, with the images",
		func(name string, head []byte) bool {
			return strings.HasSuffix(name, ".json") && bytes.Contains(head, []byte(`"rectanglelabels"`))
		}},
	{"a project of VGG Image Annotator 3", "annotate images with version 2, or convert it to COCO", func(_ string,
		head []byte) bool {
		return bytes.Contains(head, []byte(`"vid_list"`))
	}},
	{"annotations of Supervisely", "export it as COCO", func(_ string, head []byte) bool {
		return bytes.Contains(head, []byte(`"classTitle"`))
	}},
	{"COCO annotations without boxes of objects (captions, keypoints or segments)", "add instances_*.json",
		func(name string, head []byte) bool {
			return strings.HasSuffix(name, ".json") && bytes.Contains(head, []byte(`"images"`)) ||
				bytes.Contains(head, []byte(`"segments_info"`))
		}},
	{"tables of boxes (Open Images, TensorFlow, RetinaNet or SKU-110K as CSV)", "convert them to COCO or YOLO",
		func(name string, _ []byte) bool { return strings.HasSuffix(name, ".csv") }},
	{"labels of WIDER FACE", "convert them to COCO or YOLO", func(name string, _ []byte) bool {
		return strings.HasPrefix(name, "wider_face_")
	}},
	{"shapes on a map (GeoJSON, as xView has them)", "convert them to COCO or YOLO", func(name string, _ []byte) bool {
		return strings.HasSuffix(name, ".geojson")
	}},
	{"labels of KITTI", "convert them to COCO or YOLO", func(name string, head []byte) bool {
		line, _, _ := bytes.Cut(head, []byte("\n"))
		return strings.HasSuffix(name, ".txt") && len(bytes.Fields(line)) >= 15
	}},
	{"labels of DOTA", "convert them to COCO or YOLO: the upright box around the corners", func(name string,
		head []byte) bool {
		line, _, _ := bytes.Cut(head, []byte("\n"))
		words := bytes.Fields(line)
		return strings.HasSuffix(name, ".txt") && (bytes.HasPrefix(head, []byte("imagesource:")) || len(words) == 10 &&
			words[8][0] > '9')
	}},
	{"tracks of MOT Challenge", "convert them to COCO, as ByteTrack's convert_mot17_to_coco.py does", func(name string,
		_ []byte) bool {
		return name == "gt.txt" || name == "seqinfo.ini"
	}},
	{"labels of VisDrone", "convert them to YOLO, as Ultralytics' VisDrone.yaml does", func(name string,
		head []byte) bool {
		line, _, _ := bytes.Cut(head, []byte("\n"))
		return strings.HasSuffix(name, ".txt") && bytes.Count(line, []byte(",")) >= 7
	}},
	{"YOLO labels without the names of the classes",
		"add data.yaml with names: [FIRST, SECOND], and train: and val: with the folders of images",
		func(name string, head []byte) bool {
			line, _, _ := bytes.Cut(head, []byte("\n"))
			words := bytes.Fields(line)
			for _, word := range words {
				if _, err := float(string(word)); err != nil {
					return false
				}
			}
			return strings.HasSuffix(name, ".txt") && len(words) >= 5
		}},
	{"an archive", "unpack it here", func(name string, _ []byte) bool {
		return strings.HasSuffix(name, ".zip") || strings.HasSuffix(name, ".tar") || strings.HasSuffix(name, ".gz")
	}},
}

// refusal says what the folder holds, of which no layout can be read, and what to do.
func (v *version) refusal() error {
	const most = 2000 // of files that are looked into
	type begun struct {
		name string
		head []byte
	}
	var files []begun
	for _, name := range v.names() {
		if !isImage(name) && len(files) < most {
			files = append(files, begun{name, v.peek(name, 16<<10)})
		}
	}
	for _, r := range refused {
		for _, f := range files {
			if r.match(strings.ToLower(path.Base(f.name)), f.head) {
				return delivery.Blockedf(r.do, "%s: the folder holds %s, which cannot be read", f.name, r.name)
			}
		}
	}
	if n := len(v.images("")); n > 0 {
		return delivery.Blockedf("put the annotations beside them; "+readable, "the folder holds %s and no annotations",
			delivery.Count(n, "image"))
	}
	return delivery.Blockedf("name the folder of a dataset; "+readable, "the folder holds no dataset")
}
