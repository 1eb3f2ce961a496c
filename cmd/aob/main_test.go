package main

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/autonomos/aob/reconciler/artifact"
	"github.com/autonomos/aob/reconciler/delivery"
	"github.com/autonomos/aob/reconciler/detect"
	"github.com/autonomos/aob/reconciler/web"
	"github.com/autonomos/aob/tools/roboflow/roboflowtest"
)

var update = flag.Bool("update", false, "write what the scripts compare with as it comes out now")

// onnxRuntime is the path of ONNX Runtime's library; "" where it is missing.
var onnxRuntime, _ = detect.FindLibrary()

// uvFolder is the folder of the user's uv; "" where it is missing.
var uvFolder = func() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	found, _ := filepath.Glob(filepath.Join(cache, "aob", "uv-*", "bin", "uv"))
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(filepath.Dir(found[len(found)-1]))
}()

// buildDetector builds aob-detect once for all scripts. The test removes dir at its end.
func buildDetector(dir string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		binary := filepath.Join(dir, "aob-detect")
		if out, err := exec.Command("go", "build", "-o", binary, "../aob-detect").CombinedOutput(); err != nil {
			return "", fmt.Errorf("build aob-detect: %w: %s", err, out)
		}
		return binary, nil
	})
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"aob": main})
}

// Each script runs the real commands against a real server over its socket; only
// what the server serves is small and in memory.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the commands as processes")
	}
	detector := buildDetector(t.TempDir())
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "aob") // a socket's path has to be short
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(dir) })
			s := newShop()
			bundles, err := s.stock(dir)
			if err != nil {
				return err
			}
			socket := filepath.Join(dir, "aob.sock")
			l, err := web.ListenSocket(socket)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			log := slog.New(slog.NewTextHandler(io.Discard, nil))
			go func() {
				done <- web.SiteLimits().Serve(ctx, l, web.API{Source: s, Log: log,
					Bundles: bundles.Handler(nil)}.Handler(), log)
			}()
			env.Values["shop"] = s
			env.Values["stop"] = func() error { cancel(); return <-done }
			env.Defer(cancel)
			env.Setenv("AOB_SOCKET", socket)
			env.Setenv("EVIDENCE_KEY", filepath.Join(dir, "evidence.key.pub"))
			env.Setenv("USER", "maria")
			return nil
		},
		// [onnx] is true where ONNX Runtime is installed, and [uv] where uv is.
		Condition: func(name string) (bool, error) {
			switch name {
			case "onnx":
				return onnxRuntime != "", nil
			case "uv":
				return uvFolder != "", nil
			}
			return false, fmt.Errorf("unknown condition %s", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// detector makes aob-detect runnable, and sets MODELS to the folder of the test models.
			"detector": func(ts *testscript.TestScript, _ bool, _ []string) {
				binary, err := detector()
				ts.Check(err)
				models, err := filepath.Abs("../../reconciler/detect/testdata")
				ts.Check(err)
				ts.Setenv("PATH", filepath.Dir(binary)+string(filepath.ListSeparator)+ts.Getenv("PATH"))
				ts.Setenv("AOB_ONNXRUNTIME", onnxRuntime)
				ts.Setenv("MODELS", models)
			},
			// stock FOLDER puts a bundle into the store of the server of world/aob.yaml, and its files into FOLDER.
			"stock": func(ts *testscript.TestScript, _ bool, args []string) {
				ctx := context.Background()
				d := detect.Detector{Binary: filepath.Join(strings.Split(ts.Getenv("PATH"), ":")[0], "aob-detect"),
					Library: onnxRuntime}
				model := filepath.Join(ts.Getenv("MODELS"), "detector.onnx")
				sig, golden, err := d.Inspect(ctx, model)
				ts.Check(err)
				encoded, err := golden.MarshalBinary()
				ts.Check(err)
				st := state(ts.MkAbs("world/state"))
				_, err = loadKey(st.path("keys", "evidence.key"))
				ts.Check(err)
				store, err := artifact.Open(st.bundles())
				ts.Check(err)
				bundle, err := store.Push(ctx, artifact.Bundle{ModelPath: model, Signature: sig, Golden: encoded,
					Labels: []string{"red", "blue"}})
				ts.Check(err)
				ts.Check(store.Unpack(ctx, bundle, ts.MkAbs(args[0])))
			},
			// uv puts the user's uv into the cache of the script, without a network.
			"uv": func(ts *testscript.TestScript, _ bool, _ []string) {
				cache := ts.MkAbs("cache/aob")
				ts.Check(os.MkdirAll(cache, 0o755))
				ts.Check(os.Symlink(uvFolder, filepath.Join(cache, filepath.Base(uvFolder))))
				ts.Setenv("UV_OFFLINE", "1")
				ts.Setenv("UV_FIND_LINKS", ts.MkAbs("wheels"))
			},
			// wheel FILE makes the package alpha in wheels, and the lock file that has it.
			"wheel": func(ts *testscript.TestScript, _ bool, args []string) {
				const info = "alpha-1.0.dist-info/"
				var data bytes.Buffer
				z := zip.NewWriter(&data)
				for name, text := range map[string]string{"alpha.py": "version = 1\n",
					info + "METADATA": "Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\n",
					info + "WHEEL":    "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
					info + "RECORD": "alpha.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info +
						"RECORD,,\n"} {
					f, err := z.Create(name)
					ts.Check(err)
					_, err = io.WriteString(f, text)
					ts.Check(err)
				}
				ts.Check(z.Close())
				lock := fmt.Sprintf("alpha==1.0 --hash=sha256:%s\n", delivery.Sum(data.Bytes()).Hex())
				files := map[string]string{"wheels/alpha-1.0-py3-none-any.whl": data.String(), args[0]: lock}
				for path, text := range files {
					ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(path)), 0o755))
					ts.Check(os.WriteFile(ts.MkAbs(path), []byte(text), 0o644))
				}
			},
			// sha256 FILE NAME sets a variable to a file's digest; expand FILE replaces variables in a file.
			"sha256": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[1], delivery.Sum([]byte(ts.ReadFile(args[0]))).Hex())
			},
			"expand": func(ts *testscript.TestScript, _ bool, args []string) {
				text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
			},
			// pass N lets aob/release of a pull request pass.
			"pass": func(ts *testscript.TestScript, _ bool, args []string) {
				n, err := strconv.Atoi(args[0])
				ts.Check(err)
				ts.Value("shop").(*shop).pass(n)
			},
			// write TEXT appends a line to the log of the training; end ends it.
			"write": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value("shop").(*shop).write(args[0] + "\n")
			},
			"end": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Value("shop").(*shop).end() },
			// shutdown stops the server.
			"shutdown": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Check(ts.Value("stop").(func() error)())
			},
			// damage changes a byte of the stored model.
			"damage": func(ts *testscript.TestScript, _ bool, _ []string) {
				files, err := filepath.Glob(filepath.Join(filepath.Dir(ts.Getenv("AOB_SOCKET")), "bundles", "blobs",
					"sha256",
					sum("an ONNX file").Hex()))
				ts.Check(err)
				for _, file := range files {
					ts.Check(os.Chmod(file, 0o600))
					ts.Check(os.WriteFile(file, []byte("an 0NNX file"), 0o600))
				}
			},
			// roboflow FOLDER serves a folder as version 14 of acme/pallets, like Roboflow, and sets ROBOFLOW to the
			// address of the workspace. The key is rf_s3cr3tK3y.
			"roboflow": func(ts *testscript.TestScript, _ bool, args []string) {
				var data bytes.Buffer
				z := zip.NewWriter(&data)
				ts.Check(z.AddFS(os.DirFS(ts.MkAbs(args[0]))))
				ts.Check(z.Close())
				server := roboflowtest.New("acme", "rf_s3cr3tK3y")
				server.Put("pallets", 14, data.Bytes())
				server.Queue("/acme/pallets/14/coco", roboflowtest.Exporting(0.4))
				at := httptest.NewServer(server)
				ts.Defer(at.Close)
				ts.Setenv("ROBOFLOW", at.URL+"/acme")
			},
			// forge TEXT changes a byte of the stored documents that have a text.
			"forge": func(ts *testscript.TestScript, _ bool, args []string) {
				files, err := filepath.Glob(filepath.Join(filepath.Dir(ts.Getenv("AOB_SOCKET")), "bundles", "blobs",
					"sha256", "*"))
				ts.Check(err)
				for _, file := range files {
					data, err := os.ReadFile(file)
					ts.Check(err)
					if i := bytes.Index(data, []byte(args[0])); i >= 0 {
						data[i] ^= 1
						ts.Check(errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, data, 0o600)))
					}
				}
			},
			// picture FILE WxH makes a JPEG of that size.
			"picture": func(ts *testscript.TestScript, _ bool, args []string) {
				var w, h int
				_, err := fmt.Sscanf(args[1], "%dx%d", &w, &h)
				ts.Check(err)
				m := image.NewGray(image.Rect(0, 0, w, h))
				for i := range m.Pix {
					m.Pix[i] = uint8(i*i) ^ uint8(len(args[0])*i) ^ args[0][len(args[0])-5]
				}
				ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[0])), 0o755))
				f, err := os.Create(ts.MkAbs(args[0]))
				ts.Check(err)
				ts.Check(errors.Join(jpeg.Encode(f, m, nil), f.Close()))
			},
			// asked FILE writes what was asked on pull requests, a line each.
			"asked": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(ts.Value("shop").(*shop).asked()), 0o644))
			},
		},
	})
}

var _ web.Source = (*shop)(nil)

func sum(s string) delivery.Digest { return delivery.Sum([]byte(s)) }
