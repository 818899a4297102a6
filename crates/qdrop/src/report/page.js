document.querySelectorAll("table").forEach(t=>{const body=t.tBodies[0];if(!body||body.rows.length<3)return;
t.querySelectorAll("th").forEach((th,i)=>{th.dataset.sort="";th.addEventListener("click",()=>{
const down=th.getAttribute("aria-sort")!=="descending",
value=r=>{const s=r.cells[i]?r.cells[i].textContent.trim():"",n=parseFloat(s);return isNaN(n)?s:n},
rows=[...body.rows].sort((a,b)=>{const x=value(a),y=value(b);
return (typeof x==="number"&&typeof y==="number"?x-y:String(x).localeCompare(String(y)))*(down?-1:1)});
t.querySelectorAll("th").forEach(h=>h.removeAttribute("aria-sort"));
th.setAttribute("aria-sort",down?"descending":"ascending");rows.forEach(r=>body.append(r))})})});
