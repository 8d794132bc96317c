# Needs Python 3.11 or newer, pip and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
NODE := examples/node/node_modules/.package-lock.json
PLANES := eight_gaussians checkerboard two_spirals abs sinewaved_cube four_circles
OTHERS := gaussian centers real
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check unit light oldest mutations licences man audit node exported page clean

demo: .venv/ready
	rm -rf demo && mkdir demo
	$(BIN)/scgan train checkerboard --preset quick --out demo/run
	$(BIN)/scgan export demo/run --out demo/bundle
	$(BIN)/scgan sample --model demo/bundle --n 10000 --out demo/samples.npy
	$(BIN)/scgan plot samples checkerboard --samples demo/samples.npy --out demo/samples.png
	@echo "bundle:  demo/bundle (ONNX graphs; demo/bundle/card.md says what it is)"
	@echo "samples: demo/samples.npy (10,000 rows)"
	@echo "picture: demo/samples.png (data beside samples)"

# The last two take a core each.
test: check unit .venv-light/ready .venv-oldest/ready
	$(MAKE) -j 2 light oldest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Fails, too, where a test was skipped for want of what pip or npm installs.
unit: .venv/ready node
	SCGAN_COMPLETE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# The inference side alone: no torch, no onnx, nothing but the base install and onnxruntime.
light: .venv-light/ready
	OMP_NUM_THREADS=1 .venv-light/bin/python -m pytest -m 'not slow' tests/infer

# The same, and file formats, with the oldest packages that pyproject.toml allows.
oldest: .venv-oldest/ready
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -m 'not slow' tests/infer

# Ten times the damaged bundles, files and run folders that the tests try.
mutations: .venv/ready
	SCGAN_CASES=0:10000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/infer/bundle/test_fuzz.py

# The licences of what `make` installs beside scgan.
licences: .venv/ready
	$(BIN)/python docs/licences.py > docs/licences.md

# The manual page, from the commands.
man: .venv/ready
	$(BIN)/python docs/man.py > docs/scgan.1

# Licences and known advisories, first offline as the tests do, then by a vulnerability service; fails without one.
audit: .venv/ready .venv-audit/ready
	$(BIN)/python docs/audit.py
	.venv-audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt

# onnxruntime for Node and browsers; without npm, the tests that need it are skipped.
node: $(NODE)

$(NODE): examples/node/package-lock.json
	cd examples/node && ONNXRUNTIME_NODE_INSTALL=skip npm ci --silent --no-audit --no-fund || \
	  echo "npm can't install onnxruntime for Node" >&2

exported: .venv/ready
	for name in $(PLANES); do \
	  $(BIN)/scgan train $$name --out runs/exported/$$name --force && \
	  $(BIN)/scgan export runs/exported/$$name --out exported/$$name --force || exit 1; \
	done
	$(BIN)/scgan export runs/exported/eight_gaussians --out exported/eight_gaussians --triton examples/triton --force

# The six planes in the browser, the checkerboard with all four latent models.
page: .venv/ready node $(OTHERS:%=runs/page/checkerboard_%/bundle.json)
	$(BIN)/scgan page $(PLANES:%=exported/%) $(OTHERS:%=runs/page/checkerboard_%) --out page --force \
	  --runtime examples/node/node_modules/onnxruntime-web

runs/page/checkerboard_%/bundle.json: | .venv/ready
	rm -rf runs/page/$*
	$(BIN)/scgan train checkerboard --latents $* --out runs/page/$*
	$(BIN)/scgan export runs/page/$* --out runs/page/checkerboard_$*

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[cpu,train,plot,parquet,hdf5,root,fits,dask,sign,dev]'
	touch $@

.venv-light/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-light
	.venv-light/bin/pip install --quiet -c constraints.txt -e '.[cpu]' pytest hypothesis
	touch $@

.venv-oldest/ready: pyproject.toml
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet -e . numpy==1.26.* onnxruntime==1.18.* typer==0.28.0 pytest hypothesis \
	  pyarrow==23.0.1 h5py==3.12.* uproot==5.7.7 astropy==7.0.* dask[distributed]==2026.1.1 cryptography==46.0.7
	touch $@

.venv-audit/ready:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit
	touch $@

clean:
	rm -rf .venv .venv-light .venv-oldest .venv-audit examples/node/node_modules demo page build dist
