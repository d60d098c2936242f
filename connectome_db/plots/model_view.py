"""The script of the turning model: reads the scene of the page and draws it on a canvas. No library, no request."""

MODEL_SCRIPT = """
(function(){
"use strict";
var scene=JSON.parse(document.getElementById("scene").textContent),canvas=document.getElementById("space");
var pen=canvas.getContext("2d"),low=scene.low,high=scene.high,turn=0.6,tilt=-0.35,zoom=1,spin=false,last=null;
var middle=[0,1,2].map(function(k){return (low[k]+high[k])/2});
var reach=Math.max(1,Math.hypot(high[0]-low[0],high[1]-low[1],high[2]-low[2])/2);
scene.groups.forEach(function(g,k){
  g.on=true;
  var label=document.createElement("label"),box=document.createElement("input"),dot=document.createElement("span");
  box.type="checkbox";box.checked=true;dot.textContent=" \\u25a0 ";dot.style.color=g.colour;
  label.style.marginRight="1rem";label.style.whiteSpace="nowrap";label.append(box,dot,document.createTextNode(g.name));
  box.addEventListener("change",function(){g.on=box.checked;draw()});
  document.getElementById("shown").append(label);
});
function axes(){
  var a=Math.cos(turn),b=Math.sin(turn),c=Math.cos(tilt),d=Math.sin(tilt);
  return [[a,0,b],[b*d,c,-a*d],[-b*c,d,a*c]];
}
function draw(){
  var ratio=window.devicePixelRatio||1,w=canvas.clientWidth,h=canvas.clientHeight;
  if(canvas.width!==Math.round(w*ratio)||canvas.height!==Math.round(h*ratio)){
    canvas.width=Math.round(w*ratio);canvas.height=Math.round(h*ratio);
  }
  pen.setTransform(ratio,0,0,ratio,0,0);pen.fillStyle="#fff";pen.fillRect(0,0,w,h);
  var m=axes(),scale=zoom*0.48*Math.min(w,h)/reach;
  function put(p,i){
    var x=p[i]-middle[0],y=p[i+1]-middle[1],z=p[i+2]-middle[2];
    return [w/2+scale*(m[0][0]*x+m[0][1]*y+m[0][2]*z),h/2+scale*(m[1][0]*x+m[1][1]*y+m[1][2]*z),
      m[2][0]*x+m[2][1]*y+m[2][2]*z];
  }
  frame(put);
  scene.groups.forEach(function(g){
    if(!g.on){return}
    var near=[[],[],[]],i,a,b;
    for(i=0;i<g.lines.length;i+=6){
      a=put(g.lines,i);b=put(g.lines,i+3);
      near[depth(a[2]+b[2])].push(a,b);
    }
    pen.strokeStyle=g.colour;
    near.forEach(function(ends,k){
      pen.globalAlpha=[0.35,0.65,1][k];pen.lineWidth=[1,1.4,1.9][k];pen.beginPath();
      for(i=0;i<ends.length;i+=2){pen.moveTo(ends[i][0],ends[i][1]);pen.lineTo(ends[i+1][0],ends[i+1][1])}
      pen.stroke();
    });
    pen.fillStyle=g.colour;
    for(i=0;i<g.received.length;i+=3){
      a=put(g.received,i);pen.globalAlpha=[0.35,0.6,0.9][depth(2*a[2])];
      pen.beginPath();pen.arc(a[0],a[1],2.2,0,7);pen.fill();
    }
    for(i=0;i<g.made.length;i+=3){
      a=put(g.made,i);pen.globalAlpha=[0.45,0.7,1][depth(2*a[2])];
      pen.beginPath();pen.moveTo(a[0],a[1]-4.5);pen.lineTo(a[0]+4,a[1]+3);pen.lineTo(a[0]-4,a[1]+3);pen.fill();
    }
    pen.globalAlpha=1;
  });
  bar(scale,h);
}
function depth(z){return z>0.35*reach?0:z>-0.35*reach?1:2}
function frame(put){
  var corner=[],i,j;
  for(i=0;i<8;i+=1){corner.push(put([i&1?high[0]:low[0],i&2?high[1]:low[1],i&4?high[2]:low[2]],0))}
  pen.strokeStyle="#c3cad4";pen.lineWidth=1;pen.beginPath();
  for(i=0;i<8;i+=1){for(j=0;j<3;j+=1){if(!(i&(1<<j))){
    pen.moveTo(corner[i][0],corner[i][1]);pen.lineTo(corner[i|(1<<j)][0],corner[i|(1<<j)][1]);
  }}}
  pen.stroke();pen.fillStyle="#525d6d";pen.font="12px system-ui,sans-serif";
  ["x","y","z"].forEach(function(name,k){
    var end=corner[1<<k];pen.fillText(name+" "+((high[k]-low[k])/1000).toPrecision(3)+" \\u00b5m",end[0]+4,end[1]-4);
  });
}
function bar(scale,h){
  var wanted=120/scale/1000,power=Math.pow(10,Math.floor(Math.log10(wanted))),
    um=[5,2,1].map(function(k){return k*power}).find(function(v){return v<=wanted});
  pen.strokeStyle="#1b222c";pen.lineWidth=3;pen.beginPath();pen.moveTo(14,h-16);pen.lineTo(14+um*1000*scale,h-16);
  pen.stroke();pen.fillStyle="#1b222c";pen.fillText(Number(um.toPrecision(2))+" \\u00b5m",14,h-22);
}
canvas.addEventListener("pointerdown",function(e){last=[e.clientX,e.clientY];canvas.setPointerCapture(e.pointerId);stop()});
canvas.addEventListener("pointermove",function(e){
  if(!last){return}
  turn+=(e.clientX-last[0])/160;tilt-=(e.clientY-last[1])/160;last=[e.clientX,e.clientY];draw();
});
canvas.addEventListener("pointerup",function(){last=null});
canvas.addEventListener("wheel",function(e){e.preventDefault();zoom*=Math.exp(-e.deltaY/600);draw()},{passive:false});
canvas.addEventListener("keydown",function(e){
  var step={ArrowLeft:[-0.1,0],ArrowRight:[0.1,0],ArrowUp:[0,0.1],ArrowDown:[0,-0.1]}[e.key];
  if(step){e.preventDefault();stop();turn+=step[0];tilt+=step[1];draw()}
  if(e.key==="+"||e.key==="-"){zoom*=e.key==="+"?1.15:1/1.15;draw()}
});
var button=document.getElementById("spin");
function stop(){spin=false;button.textContent="Turn by itself"}
function step(){if(spin){turn+=0.008;draw();requestAnimationFrame(step)}}
button.addEventListener("click",function(){
  if(spin){stop()}else{spin=true;button.textContent="Stop";requestAnimationFrame(step)}
});
window.addEventListener("resize",draw);
draw();
canvas.dataset.drawn=scene.groups.length;
})();
"""
