// Sorts a table by the column whose head is clicked, and opens what a link of the page leads to.
const UNITS={k:1e3,M:1e6,G:1e9,T:1e12,KiB:1024,MiB:1048576,GiB:1073741824,min:60,h:3600};
// The number that a cell begins with, times its unit; "1 min 6 s" is two of them.
const number=text=>{let sum=NaN;if(/^[-\d.]/.test(text))for(const[,n,unit]of text.matchAll(/(-?[\d.]+(?:e[-+]?\d+)?) ?([a-zA-Z]*)/g)){
sum=(sum||0)+parseFloat(n)*(UNITS[unit]||1);if(unit!=="min"&&unit!=="h")break}return sum};
document.querySelectorAll("table").forEach(t=>{const body=t.tBodies[0];if(!body||body.rows.length<3)return;
t.querySelectorAll("th").forEach((th,i)=>{th.dataset.sort="";th.tabIndex=0;const sort=()=>{
const sign=th.getAttribute("aria-sort")!=="descending"?-1:1,
cells=[...body.rows].map(r=>{const text=r.cells[i]?r.cells[i].textContent.trim():"";return{r,text,n:number(text)}});
// Cells without a number come last.
cells.sort((a,b)=>isNaN(a.n)||isNaN(b.n)?isNaN(a.n)-isNaN(b.n)||sign*a.text.localeCompare(b.text):sign*(a.n-b.n));
t.querySelectorAll("th").forEach(h=>h.removeAttribute("aria-sort"));
th.setAttribute("aria-sort",sign<0?"descending":"ascending");cells.forEach(c=>body.append(c.r))};
th.addEventListener("click",sort);th.addEventListener("keydown",e=>{if(e.key==="Enter")sort()})})});
const reveal=()=>{const fold=/^#unit\d+$/.test(location.hash)&&document.querySelector(location.hash+" details");
if(fold){fold.open=true;fold.scrollIntoView()}};
addEventListener("hashchange",reveal);reveal();
