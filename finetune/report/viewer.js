// The scan viewer of the report: NiiVue over the images embedded in the page, no request to anywhere.
// The canvas carries data-state: "loading", "ready" or "failed" (no WebGL 2); without it the static
// slices below the viewer remain.
(async () => {
  const canvas = document.getElementById("canvas");
  if (!canvas) return;
  const byId = (id) => document.getElementById(id);
  const cases = JSON.parse(byId("cases").textContent);
  const palette = JSON.parse(byId("palette").textContent); // canonical label → "#rrggbb"
  const [casePicker, imagePicker, layerPicker, opacity] =
    ["pick-case", "pick-image", "pick-layer", "pick-opacity"].map(byId);

  // NiiVue's label table: one colour per canonical label, 0 transparent.
  const channel = (at) => [0, ...Object.values(palette).map((c) => parseInt(c.slice(at, at + 2), 16))];
  const colours = {
    R: channel(1), G: channel(3), B: channel(5),
    A: [0, ...Object.keys(palette).map(() => 255)],
    I: [0, ...Object.keys(palette).map(Number)],
    labels: ["", ...Object.keys(palette)],
  };

  const fill = (picker, names) => {
    const kept = picker.value; // keep the sequence and layer when another case has them too
    picker.replaceChildren(...names.map((name, i) => new Option(name, picker === casePicker ? i : name)));
    if (names.includes(kept)) picker.value = kept;
    picker.disabled = names.length < 2;
  };
  const load = (base64, name, options) =>
    niivue.NVImage.loadFromBase64({ base64, name: `${name}.nii.gz`, ...options });

  fill(casePicker, cases.map((c) => c.title));
  let viewer;
  let centred; // the case on whose tumour the cross-hair was put
  let shown = 0; // number of the latest request: an older one that ends later is dropped

  async function show() {
    const mine = ++shown;
    canvas.dataset.state = "loading";
    const chosen = cases[casePicker.value];
    const volumes = [
      await load(chosen.images[imagePicker.value], imagePicker.value, { colormap: "gray", cal_min: 0, cal_max: 255 }),
    ];
    if (layerPicker.value in chosen.labels) {
      const labels = await load(chosen.labels[layerPicker.value], layerPicker.value, {});
      labels.setColormapLabel(colours);
      labels.opacity = opacity.value / 100;
      volumes.push(labels);
    }
    if (mine !== shown) return;
    for (const old of [...viewer.volumes]) viewer.removeVolume(old);
    for (const volume of volumes) viewer.addVolume(volume);
    if (chosen !== centred) viewer.scene.crosshairPos = viewer.mm2frac(chosen.focus);
    centred = chosen;
    viewer.drawScene();
    canvas.dataset.state = "ready";
  }

  function choose() {
    const chosen = cases[casePicker.value];
    fill(imagePicker, Object.keys(chosen.images));
    fill(layerPicker, [...Object.keys(chosen.labels), "none"]);
    byId("facts").replaceChildren(
      ...Object.entries(chosen.facts).flatMap(([name, value]) => {
        const [term, text] = [document.createElement("dt"), document.createElement("dd")];
        term.textContent = name;
        text.textContent = value;
        return [term, text];
      }),
    );
    return show();
  }

  try {
    viewer = new niivue.Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [1, 1, 1, 0.4],
      crosshairWidth: 0.6,
      crosshairWidthUnit: "mm",
      isRadiologicalConvention: true,
      multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID,
      multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
      dragAndDropEnabled: false,
      loadingText: "",
      logLevel: "error",
    });
    await viewer.attachToCanvas(canvas);
    viewer.setSliceType(viewer.sliceTypeMultiplanar);
    viewer.setInterpolation(false);
    window.gliomoeViewer = viewer; // for whoever opens the console
    await choose();
  } catch (error) {
    console.error(error);
    canvas.dataset.state = "failed";
    byId("viewer").hidden = true;
    byId("no-webgl").hidden = false;
    return;
  }
  casePicker.addEventListener("change", choose);
  imagePicker.addEventListener("change", show);
  layerPicker.addEventListener("change", show);
  opacity.addEventListener("input", () => {
    if (viewer.volumes.length > 1) viewer.setOpacity(1, opacity.value / 100);
  });
})();
