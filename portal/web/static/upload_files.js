// What a person drops or chooses, as photos by relative path. What is no photo is counted by reason, as
// `bgbatch submit` does. Folders keep their names, so that the cutouts come back under them.

export const OTHER_SYSTEMS = "names that other systems cannot hold";

export class Found {
  constructor(suffixes) {
    this.suffixes = suffixes;
    this.photos = []; // [path, file]; two may have the same path
    this.leftOut = new Map();
  }

  add(path, file) {
    const name = path.slice(path.lastIndexOf("/") + 1);
    const dot = name.lastIndexOf(".");
    const suffix = dot > 0 ? name.slice(dot).toLowerCase() : "no suffix";
    if (path.split("/").some((part) => part.startsWith("."))) this.leaveOut("hidden files");
    else if (!this.suffixes.has(suffix)) this.leaveOut(suffix);
    else if (path.includes("\\")) this.leaveOut(OTHER_SYSTEMS);
    else this.photos.push([path, file]);
  }

  leaveOut(reason) {
    this.leftOut.set(reason, (this.leftOut.get(reason) ?? 0) + 1);
  }
}

export function ofPicker(list, suffixes) {
  const found = new Found(suffixes);
  for (const file of list) found.add(file.webkitRelativePath || file.name, file);
  return found;
}

export function ofDrop(entries, suffixes) {
  return walk(entries, new Found(suffixes));
}

async function walk(entries, found) {
  const folders = [entries];
  while (folders.length) {
    const inside = folders.pop();
    const files = inside.filter((entry) => entry.isFile);
    const opened = await Promise.all(files.map((entry) => new Promise((yes) => entry.file(yes, () => yes(null)))));
    files.forEach((entry, place) => {
      if (opened[place] === null) found.leaveOut("unreadable files");
      else found.add(entry.fullPath.replace(/^\//, ""), opened[place]);
    });
    for (const entry of inside) {
      if (!entry.isDirectory) continue;
      if (entry.name.startsWith(".")) found.leaveOut("hidden folders");
      else folders.push(await children(entry, found));
    }
  }
  return found;
}

async function children(folder, found) {
  const reader = folder.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((yes) => reader.readEntries(yes, () => yes(null))); // 100 at most, then asked again
    if (some === null) found.leaveOut("unreadable folders"); // what was listed before is taken
    if (!some?.length) return all;
    all.push(...some);
  }
}

// A path that no other photo has, or the path of this one if it is here already: a phone calls many photos "image.jpg".
// Null for one in a folder, which has to keep its name. `of(path)` tells the file that is here: {size, lastModified}.
export function freePath(path, file, of) {
  const dot = path.lastIndexOf(".");
  let free = path;
  for (let number = 2; of(free) && !isSame(of(free), file); number += 1) {
    if (path.includes("/")) return null;
    free = `${path.slice(0, dot)} (${number})${path.slice(dot)}`;
  }
  return free;
}

function isSame(one, other) {
  return one.size === other.size && (one.lastModified ?? other.lastModified) === other.lastModified;
}
