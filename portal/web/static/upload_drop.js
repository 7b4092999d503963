// Comes before the page is drawn: a drop must not lead the browser away from it to the file, also while upload.js, which
// takes what was dropped, is still on its way. A drop's list is empty once the drop is handled, so its entries are kept.
window.dropped = [];
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  window.dropped.push([...event.dataTransfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean));
});
