// A picture opens in its own size where it is clicked or tapped: on a phone it is small.
document.addEventListener("click", (event) => {
  const picture = event.target;
  if (picture.matches("article img") && !picture.closest("a")) window.open(picture.src);
});
